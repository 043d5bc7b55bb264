"""What is read from the cluster, through kubectl: objects of our kinds, and the Jobs, Pods and Events of each."""
