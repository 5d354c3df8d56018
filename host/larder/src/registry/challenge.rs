//! The challenges of a registry with a 401: the header `WWW-Authenticate` (RFC 9110, section 11.6.1).

use http_auth::ChallengeRef;
use http_auth::parser::ChallengeParser;

/// The strongest challenge that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A user and a password are asked for.
    Basic,
    /// A token is asked for.
    Bearer(TokenService),
}

/// The service that gives tokens for a registry (distribution token specification).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenService {
    /// The URL of the service, as the registry writes it.
    pub(crate) realm: String,
    /// The name of the registry with the service.
    pub(crate) service: Option<String>,
    /// The rights that are asked for, separated by spaces.
    pub(crate) scope: Option<String>,
    /// The reason why a token that was shown is refused.
    pub(crate) refusal: Refusal,
}

/// The reason for a 401 to a request with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The token has too few rights: another one of the same user does not help.
    Scope,
    /// Any other, such as a token that expired.
    Other,
}

impl Challenge {
    /// Returns the strongest challenge of some headers that is understood: a token before a password, in any order.
    /// What follows a syntax error in a header does not count.
    pub(crate) fn strongest<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut strongest = None;
        for header in headers {
            for challenge in ChallengeParser::new(header).map_while(Result::ok) {
                match Self::of(&challenge) {
                    bearer @ Some(Self::Bearer(_)) => return bearer,
                    Some(Self::Basic) => strongest = Some(Self::Basic),
                    None => {}
                }
            }
        }
        strongest
    }

    fn of(challenge: &ChallengeRef<'_>) -> Option<Self> {
        let value = |name: &str| {
            let found = challenge.params.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| unescaped(value.as_escaped())).filter(|value| !value.is_empty())
        };
        if challenge.scheme.eq_ignore_ascii_case("bearer") {
            let has_too_few = value("error").is_some_and(|error| error == "insufficient_scope");
            return Some(Self::Bearer(TokenService {
                realm: value("realm")?,
                service: value("service"),
                scope: value("scope"),
                refusal: if has_too_few { Refusal::Scope } else { Refusal::Other },
            }));
        }
        challenge.scheme.eq_ignore_ascii_case("basic").then_some(Self::Basic)
    }
}

/// Returns a quoted text without its escapes. `http-auth` does that for one escape alone.
fn unescaped(escaped: &str) -> String {
    let mut characters = escaped.chars();
    let next = || match characters.next() {
        Some('\\') => characters.next(),
        other => other,
    };
    std::iter::from_fn(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str) -> Challenge {
        Challenge::Bearer(TokenService {
            realm: realm.to_owned(),
            service: None,
            scope: None,
            refusal: Refusal::Other,
        })
    }

    /// A token is stronger than a password, in one header or in several, in any order and with any capitals.
    #[test]
    fn the_strongest_wins() {
        for headers in [
            &["Basic realm=\"x\"", "Bearer realm=\"r\""][..],
            &["Bearer realm=\"r\"", "Basic realm=\"x\""],
            &["Basic realm=\"x\", Bearer realm=\"r\""],
            &["bearer REALM=r"],
            &["Negotiate", "BEARER realm=r, basic realm=x"],
            &["Unknown a=b, Bearer realm=r"],
            &["Bearer realm=\"\"", "Bearer realm=\"r\""],
        ] {
            assert_eq!(Challenge::strongest(headers.iter().copied()), Some(bearer("r")), "{headers:?}");
        }
        for headers in [&["basic realm=\"x\""][..], &["Bearer service=\"s\", Basic realm=x"], &["Basic"]] {
            assert_eq!(Challenge::strongest(headers.iter().copied()), Some(Challenge::Basic), "{headers:?}");
        }
        for headers in [&[][..], &[""], &["Digest realm=\"x\""], &["Bearer"], &["Bearer realm=\"open"]] {
            assert_eq!(Challenge::strongest(headers.iter().copied()), None, "{headers:?}");
        }
    }

    /// Parameters are read with their escapes, however many there are.
    #[test]
    fn parameters() {
        let header = r#"Bearer realm="https://a/t?x=\"1\"\\",service="a, b",scope="repository:a/b:pull",error="insufficient_scope""#;
        let expected = TokenService {
            realm: r#"https://a/t?x="1"\"#.to_owned(),
            service: Some("a, b".to_owned()),
            scope: Some("repository:a/b:pull".to_owned()),
            refusal: Refusal::Scope,
        };
        assert_eq!(Challenge::strongest([header]), Some(Challenge::Bearer(expected)));
    }
}
