package policy

import (
	"errors"
	"fmt"

	"go.bytecodealliance.org/pkg/wit/types"
	"wit_component/larder_image_images"
	"wit_component/larder_image_report"
	"wit_component/larder_image_types"
	"wit_component/larder_image_usage"
)

// The number of images that are read at a time: enough that calls are few.
const page = 1024

// An image and its users.
type image struct {
	handle larder_image_types.ImageHandle
	usage  larder_image_usage.ImageUsage
}

// Reads every visible image with its usage, newest created first.
func readImages() ([]image, error) {
	var images []image
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
		references := make([]string, len(handles))
		for index, handle := range handles {
			references[index] = handle.Reference
		}
		usages := larder_image_usage.GetUsage(wit_types.Some(references))
		if usages.IsErr() {
			return nil, sentence(usages.Err())
		}
		// Answers come in the order of the references.
		for index, usage := range usages.Ok() {
			images = append(images, image{handles[index], usage})
		}
		filter.After = wit_types.Some(references[len(references)-1])
	}
}

// Stages the removal of an image and explains it.
//
// If the image is in use after all, or if the run lacks the right to remove it, the image is kept, which is explained,
// too. Any other failure is an error, as is one that refuses the whole plan.
func removeBecause(reference, reason string) error {
	removed := larder_image_images.Remove(reference, false)
	if removed.IsOk() {
		larder_image_report.Explain(reference, reason)
		return nil
	}
	why := obstacle(removed.Err())
	if why == "" {
		return sentence(removed.Err())
	}
	larder_image_report.Explain(reference, reason+"; kept because "+why)
	return nil
}

// Returns why a removal came to nothing, if the run can go on; the empty text if the whole plan is refused.
func obstacle(failure larder_image_types.Error) string {
	switch failure.Tag() {
	case larder_image_types.ErrorImageInUse:
		return "something uses it"
	case larder_image_types.ErrorDenied:
		switch failure.Denied().Right {
		case larder_image_types.RightRemove:
			return "the grant does not let this policy remove it"
		case larder_image_types.RightProtected:
			return "the operator protects it"
		}
	}
	return ""
}

// Returns an error as a sentence for the operator.
func sentence(failure larder_image_types.Error) error {
	switch failure.Tag() {
	case larder_image_types.ErrorImageNotFound:
		return fmt.Errorf("the cache has no image `%s` that this policy may see", failure.ImageNotFound())
	case larder_image_types.ErrorImageInUse:
		return fmt.Errorf("`%s` is in use", failure.ImageInUse().Reference)
	case larder_image_types.ErrorUnsupported:
		return errors.New(failure.Unsupported())
	case larder_image_types.ErrorDenied:
		return errors.New(failure.Denied().Message)
	case larder_image_types.ErrorInvalidReference:
		invalid := failure.InvalidReference()
		return fmt.Errorf("`%s`: %s", invalid.F0, invalid.F1)
	default:
		return errors.New(failure.Other())
	}
}
