"""The SMTP intake: takes mail for us, and says 250 only when the spool has committed it."""
