-- What was learnt of keys follows the answer.
if learnt then answer = answer .. pack('<' .. ('d'):rep(#learnt), unpack(learnt)) end
