package main

import (
	"errors"
	"sync"
	"time"
)

// ErrNoKey says that a posting came without its idempotency key.
var ErrNoKey = errors.New("a posting needs a key")

// entry is one line of the journal that a posting wrote.
type entry struct {
	cents   int64
	balance int64
	account string
	note    [40]byte
}

// booked is what a repeated request is answered with.
type booked struct {
	account string
	at      time.Time
	journal []entry
}

// Ledger keeps balances, and for a while the postings by their idempotency key.
// It is safe for concurrent use.
type Ledger struct {
	repaired bool

	mu       sync.Mutex // guards what follows
	balances map[string]int64
	seen     map[string]*booked
}

// NewLedger returns an empty ledger; repaired selects the code as it was after the incident.
func NewLedger(repaired bool) *Ledger {
	return &Ledger{repaired: repaired, balances: map[string]int64{}, seen: map[string]*booked{}}
}

// Post books the amounts on the account and returns its balance. A key that was booked
// already changes nothing.
func (l *Ledger) Post(key, account string, cents []int64) (int64, error) {
	if key == "" {
		return 0, ErrNoKey
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if earlier, ok := l.seen[key]; ok {
		return l.balances[earlier.account], nil
	}
	journal := make([]entry, len(cents))
	for i, amount := range cents {
		l.balances[account] += amount
		journal[i] = entry{cents: amount, balance: l.balances[account], account: account}
		copy(journal[i].note[:], "posted over http")
	}
	l.seen[key] = &booked{account: account, at: time.Now(), journal: journal}
	return l.balances[account], nil
}

// Sweep forgets the postings that were booked before the deadline.
func (l *Ledger) Sweep(deadline time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, earlier := range l.seen {
		if earlier.at.After(deadline) {
			continue
		}
		if l.repaired {
			delete(l.seen, key)
		} else {
			delete(l.seen, earlier.account)
		}
	}
}
