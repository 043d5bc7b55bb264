-- Evaluate again with the same spec.
obj.spec.runId = os.date("!%Y%m%d-%H%M%S")
obj.spec.cancel = nil
return obj
