package policy

import "strings"

// The normalized repository of a reference: docker.io/library/python of python:3.12.
func repositoryOf(reference string) string {
	path := nameOf(reference)
	registry := "docker.io"
	first, rest, found := strings.Cut(path, "/")
	if found && (first == "localhost" || strings.ContainsAny(first, ".:")) {
		path = rest
		if first != "index.docker.io" {
			registry = first
		}
	}
	if registry == "docker.io" && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	return registry + "/" + path
}

// What is left without tag and digest. A colon before the last slash is a registry's port.
func nameOf(reference string) string {
	tagged, _, _ := strings.Cut(reference, "@")
	segment := strings.LastIndexByte(tagged, '/') + 1
	last, _, _ := strings.Cut(tagged[segment:], ":")
	return tagged[:segment] + last
}
