-- Health of every kind of finetune.dev, by its conditions: docs/reference/conditions.md.
local health = {status = "Progressing", message = "Waiting for the operator"}
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "Being deleted"
  return health
end
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready, stalled, failed = conditions.Ready, conditions.Stalled, conditions.Failed
if failed ~= nil and failed.status == "True" and failed.reason == "Cancelled" then
  -- As asked for. There is no model: a later sync wave waits.
  return {status = "Suspended", message = failed.message}
end
if failed ~= nil and failed.status == "True" then
  return {status = "Degraded", message = failed.reason .. ": " .. failed.message}
end
if stalled ~= nil and stalled.status == "True" then
  return {status = "Degraded", message = stalled.reason .. ": " .. stalled.message}
end
if ready == nil then
  return health
end
health.message = ready.message
if ready.status == "True" then
  health.status = "Healthy"
elseif ready.reason == "Suspended" then
  health.status = "Suspended"
end
return health
