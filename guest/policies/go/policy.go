// Package policy keeps the newest images of each repository and what was used of late, and removes the rest.
package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"wit_component/larder_image_policy"
	"wit_component/larder_image_report"
	"wit_component/larder_image_types"
	"wit_component/larder_image_usage"
)

const (
	name    = "keep-recent-go"
	version = "0.1.0"
	summary = "Keeps the newest images of each repository and what was used of late, and removes the rest."
)

// Describe says what the policy is.
func Describe() larder_image_policy.Description {
	return larder_image_policy.Description{Name: name, Version: version, Summary: summary, ConfigSchema: schema}
}

// Evaluate decides about every image.
func Evaluate(request larder_image_policy.Request) error {
	config, err := parseConfig(request.Config)
	if err != nil {
		return err
	}
	if config.keep == 0 && config.usedWithin == nil {
		return errors.New("config of " + name + ": `keep` is 0 and `used-within` is not set, which would remove every image that nothing uses: " +
			"set `keep` to at least 1, or set `used-within`")
	}
	images, err := readImages()
	if err != nil {
		return err
	}
	slices.SortFunc(images, newestFirst)
	ranks := ranksOf(images)
	// The oldest first: a run with a goal ends as soon as that is met.
	for index, image := range slices.Backward(images) {
		remove, reason := decide(config, request.Now, image, ranks[index])
		if !remove {
			larder_image_report.Explain(image.handle.Reference, reason)
		} else if err := removeBecause(image.handle.Reference, reason); err != nil {
			return err
		}
	}
	return nil
}

// Returns the place of each image among those of its repository, counted from 1; 0 if its arrival is not recorded.
func ranksOf(newestFirst []image) []uint32 {
	counts := map[string]uint32{}
	ranks := make([]uint32, len(newestFirst))
	for index, image := range newestFirst {
		if image.handle.ArrivedAt.IsSome() {
			counts[image.handle.Repository]++
			ranks[index] = counts[image.handle.Repository]
		}
	}
	return ranks
}

// Compares by arrival, the newest first and those without one last; those of one instant by reference.
func newestFirst(a, b image) int {
	byReference := strings.Compare(a.handle.Reference, b.handle.Reference)
	arrivedA, arrivedB := a.handle.ArrivedAt, b.handle.ArrivedAt
	switch {
	case arrivedA.IsNone() && arrivedB.IsNone():
		return byReference
	case arrivedA.IsNone():
		return 1
	case arrivedB.IsNone():
		return -1
	}
	return cmp.Or(compareInstants(arrivedB.Some(), arrivedA.Some()), byReference)
}

// Tells whether the image is removed that is the rank'th newest of its repository, counted from 1, and why.
func decide(config config, now larder_image_types.Datetime, image image, rank uint32) (bool, string) {
	repository := image.handle.Repository
	if holder := heldBy(image.usage); holder != "" {
		return false, holder
	}
	if rank == 0 {
		return false, fmt.Sprintf("its arrival is not recorded, so its place in %s is unknown", repository)
	}
	if rank <= config.keep {
		if config.keep == 1 {
			return false, "the newest of " + repository
		}
		return false, fmt.Sprintf("one of the %d newest of %s", config.keep, repository)
	}
	place := fmt.Sprintf("%s newest of %s", ordinal(rank), repository)
	if config.usedWithin == nil {
		if config.keep == 1 {
			return true, place + ", of which 1 is kept"
		}
		return true, fmt.Sprintf("%s, of which %d are kept", place, config.keep)
	}
	touched, age := lastTouched(image.handle, now)
	within := *config.usedWithin
	if age.isLongerThan(within) {
		return true, fmt.Sprintf("%s, %s, which is longer than %s", place, touched, within)
	}
	return false, fmt.Sprintf("%s, %s, which is within %s", place, touched, within)
}

// Returns the last use or arrival of an image in words, whichever is later, and how long ago it was. An instant in the
// future has no age: it counts as just now.
func lastTouched(handle larder_image_types.ImageHandle, now larder_image_types.Datetime) (string, age) {
	verb, touched := "last used", handle.LastUsedAt
	if touched.IsNone() {
		verb, touched = "never used and arrived", handle.ArrivedAt
	} else if arrived := handle.ArrivedAt; arrived.IsSome() && compareInstants(arrived.Some(), touched.Some()) > 0 {
		verb, touched = "arrived", arrived
	}
	age, isPast := ageOf(touched.Some(), now)
	if !isPast {
		return verb + " in the future", age
	}
	return fmt.Sprintf("%s %s ago", verb, age), age
}

// Returns why no policy should remove an image; the empty text if nothing holds it.
func heldBy(usage larder_image_usage.ImageUsage) string {
	var users []string
	add := func(count uint32, one, many string) {
		switch count {
		case 0:
		case 1:
			users = append(users, "1 "+one)
		default:
			users = append(users, fmt.Sprintf("%d %s", count, many))
		}
	}
	add(usage.Sandboxes, "sandbox", "sandboxes")
	add(usage.Snapshots, "snapshot", "snapshots")
	switch {
	case len(users) > 0:
		return "in use by " + strings.Join(users, " and ")
	case usage.Pinned:
		return "pinned by the operator"
	}
	return ""
}

// 1st, 2nd, 3rd, 4th, …
func ordinal(number uint32) string {
	suffix := "th"
	if number/10%10 != 1 {
		switch number % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprintf("%d%s", number, suffix)
}
