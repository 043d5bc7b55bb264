"""What an object of the cluster, its Pods and its Events say, and what can be done next: read leniently, and pure.

The kubectl plugin and the Python client show the same: one reads through kubectl, the other through the API server.
"""
