package policy

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"wit_component/larder_image_types"
)

// The units of an age, the longest first, in seconds. Weeks are read, never written.
var units = []struct {
	name    byte
	seconds uint64
}{{'w', 7 * 86_400}, {'d', 86_400}, {'h', 3_600}, {'m', 60}, {'s', 1}}

// Why a length of time cannot be read, without the text itself.
var (
	errNotAnAge = errors.New("not a length of time: expected a number and a unit, such as `30d`, `12h`, `90m` or `1w2d`")
	errTooLong  = errors.New("too long a time")
)

// A length of time, never negative.
type age struct {
	seconds     uint64
	nanoseconds uint32
}

// Reads 30d, 12h, 90m or 1w2d: each unit at most once, the longer ones first.
func parseAge(text string) (age, error) {
	var sum uint64
	rest, units := text, units
	for {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		if digits == 0 || digits == len(rest) {
			return age{}, errNotAnAge
		}
		for len(units) > 0 && units[0].name != rest[digits] {
			units = units[1:]
		}
		if len(units) == 0 {
			return age{}, errNotAnAge
		}
		part, fits := parseDigits(rest[:digits])
		high, part := bits.Mul64(part, units[0].seconds)
		var carry uint64
		sum, carry = bits.Add64(sum, part, 0)
		if !fits || high != 0 || carry != 0 {
			return age{}, errTooLong
		}
		rest, units = rest[digits+1:], units[1:]
		if rest == "" {
			return age{seconds: sum}, nil
		}
	}
}

// The value of digits, and whether it fits.
func parseDigits(digits string) (uint64, bool) {
	var value uint64
	for _, digit := range []byte(digits) {
		high, low := bits.Mul64(value, 10)
		sum, carry := bits.Add64(low, uint64(digit-'0'), 0)
		if high != 0 || carry != 0 {
			return 0, false
		}
		value = sum
	}
	return value, true
}

// The two largest units that are not zero, such as 12d4h; less than a second is 0s.
func (a age) String() string {
	var parts []string
	rest := a.seconds
	for _, unit := range units[1:] {
		if count := rest / unit.seconds; count > 0 && len(parts) < 2 {
			parts = append(parts, fmt.Sprintf("%d%c", count, unit.name))
		}
		rest %= unit.seconds
	}
	if len(parts) == 0 {
		return "0s"
	}
	return strings.Join(parts, "")
}

func (a age) isLongerThan(b age) bool {
	return cmp.Or(cmp.Compare(a.seconds, b.seconds), cmp.Compare(a.nanoseconds, b.nanoseconds)) > 0
}

// How long ago an instant was, and whether it lies in the past at all.
func ageOf(at, now larder_image_types.Datetime) (age, bool) {
	if compareInstants(at, now) > 0 {
		return age{}, false
	}
	// The difference of two instants fits into 64 bits without a sign, which is how it is computed.
	seconds := uint64(now.Seconds) - uint64(at.Seconds)
	if now.Nanoseconds < at.Nanoseconds {
		return age{seconds - 1, now.Nanoseconds + 1_000_000_000 - at.Nanoseconds}, true
	}
	return age{seconds, now.Nanoseconds - at.Nanoseconds}, true
}

func compareInstants(a, b larder_image_types.Datetime) int {
	return cmp.Or(cmp.Compare(a.Seconds, b.Seconds), cmp.Compare(a.Nanoseconds, b.Nanoseconds))
}
