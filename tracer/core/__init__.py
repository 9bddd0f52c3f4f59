"""Pure: events, their order, the ledger and the verdicts. Imports only the standard library."""
