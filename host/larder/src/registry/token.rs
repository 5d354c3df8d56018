//! Requests for tokens (distribution token specification): `GET` with a user and a password or without, `POST` with an
//! identity token.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::challenge::TokenService;
use super::credentials::secret::Secret;
use super::network::{Network, Request, Transport, host_of, strip};
use super::problem::{Fault, Problem};

/// The maximum number of bytes of an answer with a token.
const TOKEN_BYTES: u64 = 64 << 10;

/// The time for which a token is valid if the service does not say, and at least.
const SHORTEST_VALIDITY: u64 = 60;

/// The name of this client for token services.
const CLIENT: &str = "larder";

/// A token.
pub(super) struct Token {
    pub(super) text: String,
    /// The time for which it is valid.
    pub(super) validity: Duration,
}

/// The answer of a token service.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    /// The same, as OAuth 2.0 names it.
    #[serde(default)]
    access_token: Option<String>,
    /// In seconds.
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Requests a token, once. `scope` is for services that state none.
pub(super) async fn request(
    network: &Network,
    service: &TokenService,
    scope: &str,
    secret: &Secret,
) -> Result<Token, Fault> {
    let url = realm(&service.realm, network.transport)?;
    let host = host_of(&url);
    let about = |fault: Fault| fault.at(&host);
    let answer = network.send(prepare(url, service, scope, secret)).await.map_err(about)?;
    if !answer.status().is_success() {
        return Err(about(answer.fault().await));
    }
    let text = answer.document(TOKEN_BYTES).await.map_err(about)?;
    let TokenAnswer { token, access_token, expires_in } = serde_json::from_slice(&text).map_err(|_| {
        about(Fault::lasting(Problem::Failed("it sent no answer of a token service".to_owned())))
    })?;
    let text = token.into_iter().chain(access_token).find(|token| !token.is_empty());
    let text = text.ok_or_else(|| {
        about(Fault::lasting(Problem::Failed("there is no token in its answer".to_owned())))
    })?;
    let validity = Duration::from_secs(expires_in.unwrap_or_default().max(SHORTEST_VALIDITY));
    Ok(Token { text, validity })
}

/// Returns the URL of a token service. A registry that is reached by HTTPS may not name one that is reached by plain HTTP.
fn realm(text: &str, transport: Transport) -> Result<Url, Fault> {
    let fail = |why: String| Fault::lasting(Problem::Failed(why));
    let url = Url::parse(text).ok().filter(|url| url.host().is_some());
    let mut url = url.ok_or_else(|| fail("the address of its token service is not valid".to_owned()))?;
    match (url.scheme(), transport) {
        ("https", _) | ("http", Transport::PlainHttp) => {}
        ("http", Transport::Https) => {
            return Err(fail(format!("its token service, `{}`, is reached by plain HTTP", host_of(&url))));
        }
        _ => return Err(fail("the address of its token service is not one of HTTP".to_owned())),
    }
    strip(&mut url);
    Ok(url)
}

fn prepare(mut url: Url, service: &TokenService, scope: &str, secret: &Secret) -> Request {
    let scopes = || service.scope.as_deref().unwrap_or(scope).split(' ').filter(|scope| !scope.is_empty());
    if let Secret::Identity(token) = secret {
        let mut request = Request::new(Method::POST, url);
        // Only its query is of use: the form.
        let mut form = request.url.clone();
        form.query_pairs_mut()
            .clear()
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", CLIENT)
            .extend_pairs(service.service.iter().map(|service| ("service", service)))
            .append_pair("scope", &scopes().collect::<Vec<_>>().join(" "))
            .append_pair("refresh_token", token);
        request.form = form.query().map(str::to_owned);
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers.insert(CONTENT_TYPE, kind);
        return request;
    }
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(service.service.iter().map(|service| ("service", service)));
        query.extend_pairs(scopes().map(|scope| ("scope", scope)));
        if let Secret::Password { user, .. } = secret {
            query.append_pair("client_id", CLIENT).append_pair("account", user);
        }
    }
    let mut request = Request::new(Method::GET, url);
    request.authorization = secret.basic();
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::challenge::Refusal;

    fn service(scope: Option<&str>) -> TokenService {
        TokenService {
            realm: "https://t/token?x=1".to_owned(),
            service: Some("a b".to_owned()),
            scope: scope.map(str::to_owned),
            refusal: Refusal::Other,
        }
    }

    fn prepared(scope: Option<&str>, secret: &Secret) -> Request {
        let url = realm("https://t/token?x=1", Transport::Https).expect("a service");
        prepare(url, &service(scope), "repository:a/b:pull", secret)
    }

    /// HTTPS stays HTTPS: the token service of a registry by HTTPS is reached by it, too. A user in its address is none.
    #[test]
    fn services() {
        let at = |text, transport| realm(text, transport).map(|url| url.to_string()).ok();
        assert_eq!(at("https://u:p@t/a?b#c", Transport::Https).as_deref(), Some("https://t/a?b"));
        assert_eq!(at("https://t/a", Transport::PlainHttp).as_deref(), Some("https://t/a"));
        assert_eq!(at("http://t/a", Transport::PlainHttp).as_deref(), Some("http://t/a"));
        for odd in ["http://t/a", "file:///a", "a", ""] {
            assert_eq!(at(odd, Transport::Https), None, "{odd}");
        }
    }

    /// A token is asked for with the scopes of the challenge, or else for pulling, and with the user's password in a header.
    #[test]
    fn requests() {
        let anonymous = prepared(None, &Secret::None);
        assert_eq!(anonymous.url.as_str(), "https://t/token?x=1&service=a+b&scope=repository%3Aa%2Fb%3Apull");
        assert_eq!((anonymous.authorization, anonymous.form), (None, None));
        let acme = Secret::Password { user: "acme".to_owned(), password: "secret".to_owned() };
        let request = prepared(Some("repository:x:pull aws"), &acme);
        assert_eq!(
            request.url.as_str(),
            "https://t/token?x=1&service=a+b&scope=repository%3Ax%3Apull&scope=aws&client_id=larder&account=acme"
        );
        assert_eq!(request.authorization.expect("a user").to_str().ok(), Some("Basic YWNtZTpzZWNyZXQ="));
    }

    /// An identity token is sent in a form, and is in no URL.
    #[test]
    fn identity_tokens() {
        let request = prepared(None, &Secret::Identity("s&cret".to_owned()));
        assert_eq!((request.method, request.url.as_str()), (Method::POST, "https://t/token?x=1"));
        assert_eq!(
            request.form.as_deref(),
            Some(
                "grant_type=refresh_token&client_id=larder&service=a+b&scope=repository%3Aa%2Fb%3Apull&refresh_token=s%26cret"
            )
        );
        assert_eq!(request.authorization, None);
    }
}
