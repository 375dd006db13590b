//! The contract's own example: a file of commands that leads to settled, rejected and dead-lettered ones.

/// Two wallets, a top-up, a transfer, one of too much, and one whose amount is a number.
pub(crate) const COMMANDS: &str = r#"{"type":"open_wallet","tenant":"acme","idempotency_key":"o-1","wallet":"alice","currency":"AED","country":"AE","kind":"personal","holder":"Alice"}
{"type":"open_wallet","tenant":"acme","idempotency_key":"o-2","wallet":"bob","currency":"AED","country":"AE","kind":"merchant","holder":"Bob"}
{"type":"top_up","tenant":"acme","idempotency_key":"t-1","wallet":"alice","amount":"100","currency":"AED","source":{"account":"till"}}
{"type":"transfer","tenant":"acme","idempotency_key":"order-1","wallet":"alice","to":"bob","amount":"12.50","currency":"AED"}
{"type":"transfer","tenant":"acme","idempotency_key":"order-2","wallet":"alice","to":"bob","amount":"1000.00","currency":"AED"}
{"type":"transfer","tenant":"acme","idempotency_key":"order-3","wallet":"alice","to":"bob","amount":12.5,"currency":"AED"}
"#;
