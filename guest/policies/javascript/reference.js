// Image references: how their spellings compare.

// The normalized repository of a reference: `docker.io/library/python` of `python:3.12`.
export function repositoryOf(reference) {
  const name = nameOf(reference);
  const slash = name.indexOf("/");
  const first = name.slice(0, Math.max(slash, 0));
  const hasRegistry = slash >= 0 && (first === "localhost" || /[.:]/.test(first));
  const path = hasRegistry ? name.slice(slash + 1) : name;
  const registry = hasRegistry && first !== "index.docker.io" ? first : "docker.io";
  return registry === "docker.io" && !path.includes("/") ? `docker.io/library/${path}` : `${registry}/${path}`;
}

// What is left without tag and digest. A colon before the last slash is a registry's port.
function nameOf(reference) {
  const [tagged] = reference.split("@", 1);
  const colon = tagged.indexOf(":", tagged.lastIndexOf("/") + 1);
  return colon < 0 ? tagged : tagged.slice(0, colon);
}
