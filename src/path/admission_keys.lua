-- Vendor keys: their windows and their health, one string each, none for a key without a limit that
-- is well. Each is read once a call and written once, at its end. A key here: 1 its name, 2 its window or false, 3 whether
-- what it says must be told to live longer, 4 whether it has changed. By their place among the arguments, from 1 on; two
-- are the usual case.
local keys = {false, false}
