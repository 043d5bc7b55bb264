"""What `model` and `datasetRef` mean in a spec: a URI, a result, the best trial of a sweep, a revision of a Dataset."""
