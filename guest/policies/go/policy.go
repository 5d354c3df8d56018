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
		return errors.New("`keep` is 0 and `used-within` is not set, which would remove every image that nothing uses: " +
			"set `keep` to at least 1, or set `used-within`")
	}
	images, err := readImages()
	if err != nil {
		return err
	}
	slices.SortFunc(images, newestFirst)
	ranks := map[string]uint32{}
	for _, image := range images {
		reference := image.handle.Reference
		repository := repositoryOf(reference)
		// An image without a creation date has no place among the others, which is rank 0.
		var rank uint32
		if image.handle.CreatedAt.IsSome() {
			ranks[repository]++
			rank = ranks[repository]
		}
		remove, reason := decide(config, request.Now, image, repository, rank)
		if !remove {
			larder_image_report.Explain(reference, reason)
		} else if err := removeBecause(reference, reason); err != nil {
			return err
		}
	}
	return nil
}

// By creation, the newest first and those without a date last; of one instant, by reference.
func newestFirst(a, b image) int {
	byReference := strings.Compare(a.handle.Reference, b.handle.Reference)
	createdA, createdB := a.handle.CreatedAt, b.handle.CreatedAt
	switch {
	case createdA.IsNone() && createdB.IsNone():
		return byReference
	case createdA.IsNone():
		return 1
	case createdB.IsNone():
		return -1
	}
	return cmp.Or(compareInstants(createdB.Some(), createdA.Some()), byReference)
}

// Whether the image goes that is the rank'th newest of its repository, counted from 1, and why.
func decide(config config, now larder_image_types.Datetime, image image, repository string, rank uint32) (bool, string) {
	if holder := heldBy(image.usage); holder != "" {
		return false, holder
	}
	if rank == 0 {
		return false, fmt.Sprintf("has no creation date, so its place in %s is unknown", repository)
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
	verb, touched := "last used", image.handle.LastUsedAt
	if touched.IsNone() {
		verb, touched = "never used and created", image.handle.CreatedAt
	}
	// An instant in the future has no age: it counts as just used.
	age, isPast := ageOf(touched.Some(), now)
	when := "in the future"
	if isPast {
		when = age.String() + " ago"
	}
	within := *config.usedWithin
	if age.isLongerThan(within) {
		return true, fmt.Sprintf("%s, %s %s, which is longer than %s", place, verb, when, within)
	}
	return false, fmt.Sprintf("%s, %s %s, which is within %s", place, verb, when, within)
}

// Why nobody should even try to remove an image; empty where nothing holds it.
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
