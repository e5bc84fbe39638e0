//! A function's environment variables, parsed before its first event.

use std::net::SocketAddr;
use std::str::FromStr;

use thiserror::Error;

use crate::resolve;

/// Environment variables, read by a function such as `|name| std::env::var(name).ok()`.
///
/// A variable that is empty or blank counts as not set, because a template cannot leave one out.
#[derive(Debug)]
pub struct Environment<F>(F);

/// Why a variable cannot be used.
#[derive(Debug, PartialEq, Error)]
pub enum Error {
    /// A variable without a default is not set.
    #[error("environment variable {0} is not set (the template sets it)")]
    Missing(&'static str),
    /// A variable has a value that cannot be parsed.
    #[error("environment variable {name}: {value:?} is not {expected}")]
    #[expect(missing_docs, reason = "the message explains them")]
    Invalid {
        name: &'static str,
        value: String,
        expected: &'static str,
    },
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    /// An environment of which `variable` reads one variable by its name.
    pub fn new(variable: F) -> Self {
        Self(variable)
    }

    /// The value of a variable that may be left out.
    pub fn optional(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.trim().is_empty())
    }

    /// The value of a variable that must be set.
    pub fn required(&self, name: &'static str) -> Result<String, Error> {
        self.optional(name).ok_or(Error::Missing(name))
    }

    /// The value of a variable that may be left out; the error says what was `expected` instead.
    pub fn parsed<T: FromStr>(&self, name: &'static str, expected: &'static str) -> Result<Option<T>, Error> {
        self.parsed_with(name, expected, |value| value.parse().ok())
    }

    /// The name server that `NAMESERVER` sets in place of the system's.
    pub fn nameserver(&self) -> Result<Option<SocketAddr>, Error> {
        self.nameserver_at("NAMESERVER")
    }

    /// A name server to ask, in this variable: an address, with or without a port.
    pub fn nameserver_at(&self, name: &'static str) -> Result<Option<SocketAddr>, Error> {
        self.parsed_with(name, "an address, with or without :port", resolve::nameserver)
    }

    fn parsed_with<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.optional(name) else {
            return Ok(None);
        };
        match parse(value.trim()) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(Error::Invalid { name, value, expected }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_variable_is_not_set() {
        let environment = Environment::new(|_: &str| Some(" ".to_owned()));
        assert_eq!(environment.optional("STACK_NAME"), None);
        assert_eq!(environment.required("BUCKET"), Err(Error::Missing("BUCKET")));
        assert_eq!(environment.parsed::<u32>("WARN_DAYS", "a number of days"), Ok(None));
    }

    #[test]
    fn errors_name_variable_value_and_form() {
        let environment = Environment::new(|_: &str| Some("resolver.example".to_owned()));
        assert_eq!(
            environment.nameserver().unwrap_err().to_string(),
            "environment variable NAMESERVER: \"resolver.example\" is not an address, with or without :port"
        );
    }
}
