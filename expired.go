package keepcache

// tell tells of expired entries that were removed from the file.
func (sw *sweeper) tell(gone []dueRow) {
	if len(gone) == 0 || !sw.events.wants(EventExpire) {
		return
	}
	name := ""
	for i, d := range gone { // sorted by id
		if i == 0 || d.id != gone[i-1].id {
			name = sw.nameOf(d.id)
		}
		sw.events.tell(Event{Kind: EventExpire, Bucket: name, Key: string(d.key)})
	}
}

// tellPinned tells of entries that expired before they came into the file. changes are what became of pins.
func (sw *sweeper) tellPinned(pins []pin, changes []*change) {
	if !sw.events.wants(EventExpire) {
		return
	}
	name := ""
	for i, p := range pins { // sorted by id
		if i == 0 || p.id != pins[i-1].id {
			name = sw.nameOf(p.id)
		}
		if p.stored != nil && changes[i].record == nil {
			sw.events.tell(Event{Kind: EventExpire, Bucket: name, Key: cloneKey(p.key)})
		}
	}
}
