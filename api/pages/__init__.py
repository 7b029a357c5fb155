"""Pages for people without an account: HTML without script, and the stylesheet it asks for."""
