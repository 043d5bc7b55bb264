-- End the run for good; what is answered is kept.
obj.spec.cancel = true
return obj
