//! Policies.

/// Why a policy could not be loaded or its run ended without a plan.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {}
