-- Stop the Pod; what is answered is kept.
obj.spec.suspend = true
return obj
