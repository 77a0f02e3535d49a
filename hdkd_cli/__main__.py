"""``python -m hdkd_cli``, for torchrun."""

from hdkd_cli.app import main

if __name__ == "__main__":
    main()
