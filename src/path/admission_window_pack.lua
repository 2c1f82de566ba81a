-- From its includer: w, and more, a string that follows its numbers. To it: packed.
local packed = pack(STATE_AND_MORE, w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[15],
	w[16], w[17], w[18], w[19], w[20], w[21], more)
