"""spec.gateway: what stands in front of the serving Pods."""
