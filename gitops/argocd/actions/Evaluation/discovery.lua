local ended = {Passed = true, GateFailed = true, Inconclusive = true, Failed = true, Cancelled = true}
local phase = (obj.status or {}).phase
local is_over = ended[phase] == true
local is_suspended = obj.spec.suspend == true
return {
  suspend = {disabled = is_over or is_suspended},
  resume = {disabled = is_over or not is_suspended},
  cancel = {disabled = is_over or obj.spec.cancel == true},
  rerun = {disabled = not is_over},
}
