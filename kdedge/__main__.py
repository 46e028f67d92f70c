"""`python -m kdedge`, which `accelerate launch -m kdedge` starts too."""

from kdedge.cli.main import main

if __name__ == "__main__":
    main()
