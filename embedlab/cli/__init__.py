"""The command line: `embedlab WORDS` and the commands beside it; nothing else imports it."""
