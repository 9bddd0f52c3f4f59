"""From frozen snapshots to text. No view calls the ledger or the kernel."""
