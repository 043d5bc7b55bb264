local ended = {Passed = true, GateFailed = true, Inconclusive = true, Failed = true}
return {rerun = {disabled = ended[(obj.status or {}).phase] ~= true}}
