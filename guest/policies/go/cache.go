package policy

import (
	"errors"
	"fmt"
	"strings"

	"go.bytecodealliance.org/pkg/wit/types"
	"wit_component/larder_image_images"
	"wit_component/larder_image_report"
	"wit_component/larder_image_types"
	"wit_component/larder_image_usage"
)

// How many images are read at a time: enough that calls are few.
const page = 1024

// An image and who needs it.
type image struct {
	handle larder_image_types.ImageHandle
	usage  larder_image_usage.ImageUsage
}

// Every visible image with its usage, newest created first.
func readImages() ([]image, error) {
	listed := larder_image_usage.ListUsage()
	if listed.IsErr() {
		return nil, sentence(listed.Err())
	}
	usages := make(map[string]larder_image_usage.ImageUsage, len(listed.Ok()))
	for _, usage := range listed.Ok() {
		usages[usage.Reference] = usage
	}
	images := make([]image, 0, len(usages))
	filter := larder_image_images.ImageFilter{
		Order: larder_image_images.OrderCreatedNewestFirst,
		Limit: wit_types.Some[uint32](page),
	}
	for {
		selected := larder_image_images.Select(filter)
		if selected.IsErr() {
			return nil, sentence(selected.Err())
		}
		handles := selected.Ok()
		if len(handles) == 0 {
			return images, nil
		}
		for _, handle := range handles {
			usage, known := usages[handle.Reference]
			if !known {
				return nil, fmt.Errorf("the host lists `%s` and has no usage for it", handle.Reference)
			}
			delete(usages, handle.Reference)
			images = append(images, image{handle, usage})
		}
		filter.After = wit_types.Some(handles[len(handles)-1].Reference)
	}
}

// Stages the removal of an image and explains it.
//
// What is in use after all, or is not this run's to remove, is kept, and that is explained. Only what makes the whole
// run pointless is an error, as is going past a cap of the grant.
func removeBecause(reference, reason string) error {
	removed := larder_image_images.Remove(reference, false)
	if removed.IsOk() {
		larder_image_report.Explain(reference, reason)
		return nil
	}
	failure := removed.Err()
	isDenied := failure.Tag() == larder_image_types.ErrorDenied
	isBudget := isDenied && failure.Denied().Right == larder_image_types.RightBudget
	if isBudget || !isDenied && failure.Tag() != larder_image_types.ErrorImageInUse {
		return sentence(failure)
	}
	larder_image_report.Explain(reference, fmt.Sprintf("%s; kept because %s", reason, sentence(failure)))
	return nil
}

// An error as a sentence for the operator.
func sentence(failure larder_image_types.Error) error {
	switch failure.Tag() {
	case larder_image_types.ErrorImageNotFound:
		return fmt.Errorf("the cache holds no image `%s` that this policy may see", failure.ImageNotFound())
	case larder_image_types.ErrorImageInUse:
		users := failure.ImageInUse()
		return fmt.Errorf("`%s` is in use by %s", users.Reference, names(users))
	case larder_image_types.ErrorUnsupported:
		return errors.New(failure.Unsupported())
	case larder_image_types.ErrorDenied:
		return errors.New(failure.Denied().Message)
	case larder_image_types.ErrorInvalidReference:
		return fmt.Errorf("`%s` is not an image reference", failure.InvalidReference())
	default:
		return errors.New(failure.Other())
	}
}

// All users in words.
func names(users larder_image_types.ImageUsers) string {
	var all []string
	for _, name := range users.Sandboxes {
		all = append(all, fmt.Sprintf("sandbox `%s`", name))
	}
	for _, name := range users.Snapshots {
		all = append(all, fmt.Sprintf("snapshot `%s`", name))
	}
	switch len(all) {
	case 0:
		return "a running operation"
	case 1:
		return all[0]
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " and " + all[last]
}
