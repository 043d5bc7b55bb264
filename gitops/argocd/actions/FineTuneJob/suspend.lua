-- Save a checkpoint and stop the Pods.
obj.spec.suspend = true
return obj
