//! Access to a registry: Basic credentials, or a token that is renewed before it expires and when it is refused.

use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;
use tokio::sync::Mutex;

use super::challenge::{Challenge, TokenService};
use super::credentials::secret::{Place, Secret};
use super::credentials::{Credentials, Found};
use super::network::Network;
use super::problem::{Fault, Problem};
use super::token;

/// The time before its end at which a token counts as expired.
const MARGIN: Duration = Duration::from_secs(5);

/// The length as of which a text that was shown is a secret: a shorter one is in words by chance.
const SHORTEST_SECRET: usize = 4;

/// The access to a registry.
pub(super) struct Access {
    credentials: Credentials,
    place: Place,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The credentials, once they are needed.
    found: Option<Found>,
    shown: Option<Shown>,
    /// The service of the token that is shown.
    service: Option<TokenService>,
}

/// The credentials that are shown with a request.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) header: HeaderValue,
    pub(super) kind: Kind,
    /// The instant at which it expires.
    until: Option<Instant>,
    /// The number of this among all that were shown.
    number: u64,
}

/// The kind of what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Credentials,
    Token,
}

impl Shown {
    fn is_valid(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now + MARGIN < until)
    }
}

impl Access {
    pub(super) fn new(credentials: Credentials, place: Place) -> Self {
        Self { credentials, place, state: Mutex::default() }
    }

    /// Returns what is to be shown with a request, after renewing it if it expires. Nothing is shown before the registry
    /// asks.
    pub(super) async fn current(&self, network: &Network) -> Result<Option<Shown>, Fault> {
        let mut state = self.state.lock().await;
        let is_valid = state.shown.as_ref().is_none_or(|shown| shown.is_valid(Instant::now()));
        match state.service.clone() {
            Some(service) if !is_valid => self.token(&mut state, service, network).await,
            _ => Ok(state.shown.clone()),
        }
    }

    /// Returns what answers a challenge, or `None` if there is nothing. `refused` is what was shown before.
    pub(super) async fn answer(
        &self,
        challenge: Challenge,
        refused: Option<&Shown>,
        network: &Network,
    ) -> Result<Option<Shown>, Fault> {
        let mut state = self.state.lock().await;
        let newer =
            state.shown.as_ref().filter(|shown| Some(shown.number) != refused.map(|shown| shown.number));
        if let Some(newer) = newer {
            // Another request was refused before, and has renewed it.
            return Ok(Some(newer.clone()));
        }
        match challenge {
            Challenge::Bearer(service) => self.token(&mut state, service, network).await,
            Challenge::Basic => {
                let header = self.secret(&mut state).await.basic();
                Ok(header.map(|header| state.show(header, Kind::Credentials, None)))
            }
        }
    }

    async fn token(
        &self,
        state: &mut State,
        service: TokenService,
        network: &Network,
    ) -> Result<Option<Shown>, Fault> {
        let header = |text: &str| {
            HeaderValue::from_str(&format!("Bearer {text}"))
                .map_err(|_| Fault::lasting(Problem::Failed("its token is not text".to_owned())))
        };
        let secret = self.secret(state).await;
        if let Secret::Bearer(token) = secret {
            let header = header(token)?;
            // There is no other one where this is refused.
            return Ok(Some(state.show(header, Kind::Credentials, None)));
        }
        let scope = format!("repository:{}:pull", self.place.repository);
        let token = token::request(network, &service, &scope, secret).await?;
        let until = Instant::now().checked_add(token.validity);
        state.service = Some(service);
        Ok(Some(state.show(header(&token.text)?, Kind::Token, until)))
    }

    async fn secret<'s>(&self, state: &'s mut State) -> &'s Secret {
        if state.found.is_none() {
            state.found = Some(self.credentials.find(&self.place).await);
        }
        state.found.as_ref().map_or(&Secret::None, |found| &found.secret)
    }

    /// Returns whether there are credentials, which are looked for if that was not done before.
    pub(super) async fn has_credentials(&self) -> bool {
        *self.secret(&mut *self.state.lock().await).await != Secret::None
    }

    /// Returns the fault with the trouble that there was with the credentials, if access is refused because of that.
    pub(super) async fn explain(&self, fault: Fault) -> Fault {
        let state = self.state.lock().await;
        let fault = state.without_secrets(fault);
        match (&fault.problem, &state.found) {
            (Problem::Refused(_), Some(Found { secret: Secret::None, trouble: Some(trouble) })) => {
                let (path, why) = (trouble.path.clone(), trouble.why.clone());
                Fault::lasting(Problem::Credentials { path, why })
            }
            (Problem::Refused(why), Some(Found { secret: Secret::Password { user, .. }, .. })) => {
                let user = format!("as the user `{user}`");
                let why = why.as_ref().map_or_else(|| user.clone(), |why| format!("{why} ({user})"));
                Fault { problem: Problem::Refused(Some(why)), ..fault }
            }
            _ => fault,
        }
    }
}

impl State {
    /// Returns a fault whose text has nothing that was shown, which a registry may have sent back.
    fn without_secrets(&self, fault: Fault) -> Fault {
        let shown = self.shown.as_ref().and_then(|shown| shown.header.to_str().ok());
        let shown = shown.and_then(|header| header.split_once(' ')).map(|(_, secret)| secret.to_owned());
        let secrets: Vec<String> =
            self.found.iter().flat_map(|found| found.secret.texts()).chain(shown).collect();
        let clean = |why: String| {
            secrets
                .iter()
                .filter(|secret| secret.len() >= SHORTEST_SECRET)
                .fold(why, |why, secret| why.replace(secret, "…"))
        };
        let problem = match fault.problem {
            Problem::Refused(why) => Problem::Refused(why.map(clean)),
            Problem::Failed(why) => Problem::Failed(clean(why)),
            problem => problem,
        };
        Fault { problem, ..fault }
    }

    fn show(&mut self, mut header: HeaderValue, kind: Kind, until: Option<Instant>) -> Shown {
        header.set_sensitive(true);
        let number = self.shown.as_ref().map_or(0, |shown| shown.number + 1);
        let shown = Shown { header, kind, until, number };
        self.shown = Some(shown.clone());
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token is renewed a little before it expires, and a password never.
    #[test]
    fn validity() {
        let now = Instant::now();
        let mut state = State::default();
        let header = HeaderValue::from_static("x");
        let password = state.show(header.clone(), Kind::Credentials, None);
        assert!(password.is_valid(now + Duration::from_secs(1 << 30)));
        let token = state.show(header, Kind::Token, Some(now + Duration::from_secs(60)));
        assert!(token.is_valid(now) && token.is_valid(now + Duration::from_secs(54)));
        assert!(!token.is_valid(now + Duration::from_secs(55)));
        assert!(token.number > password.number && token.header.is_sensitive());
    }
}
