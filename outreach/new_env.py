"""`python -m outreach.new_env`: prints a `.env` with fresh keys. Needs no settings, because it makes them."""

import secrets

from cryptography.fernet import Fernet


def main() -> None:
    print("# Keys of this installation. Keep them: without OUTREACH_SECRET_KEYS stored credentials cannot be read.")
    print(f"SECRET_KEY={secrets.token_urlsafe(50)}")
    print(f"OUTREACH_SECRET_KEYS={Fernet.generate_key().decode()}")
    print("# Everything else has a default; .env.example lists it.")


if __name__ == "__main__":
    main()
