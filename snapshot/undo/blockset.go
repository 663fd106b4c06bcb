package undo

// blockSet is a set of block numbers, kept as bitmaps of 16384 blocks (64 MiB)
// so that it costs 2 KiB per touched region, 32 MiB per fully touched TiB.
type blockSet map[int64]*[256]uint64

const regionBlocks = 256 * 64

func (b blockSet) has(block int64) bool {
	region := b[block/regionBlocks]
	return region != nil && region[block%regionBlocks/64]&(1<<(block%64)) != 0
}

// add adds the blocks from first up to, not including, end.
func (b blockSet) add(first, end int64) {
	for block := first; block < end; {
		region := b[block/regionBlocks]
		if region == nil {
			region = new([256]uint64)
			b[block/regionBlocks] = region
		}
		stop := min(end, (block/regionBlocks+1)*regionBlocks)
		for block < stop {
			word := &region[block%regionBlocks/64]
			if block%64 == 0 && stop-block >= 64 {
				*word = ^uint64(0)
				block += 64
				continue
			}
			*word |= 1 << (block % 64)
			block++
		}
	}
}

// missing finds the first run of blocks in [first, end) that are not in the
// set; empty when from == to.
func (b blockSet) missing(first, end int64) (from, to int64) {
	for from = first; from < end && b.has(from); from++ {
	}
	for to = from; to < end && !b.has(to); to++ {
	}
	return from, to
}
