-- Go on with what is not answered yet.
obj.spec.suspend = false
return obj
