"""What others signed: whose keys are trusted for what, DSSE envelopes, releases, promotions, revocations."""
