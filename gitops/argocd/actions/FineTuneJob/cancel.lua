-- End the run for good; its checkpoints stay.
obj.spec.cancel = true
return obj
