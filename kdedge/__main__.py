"""Run the command line: `python -m kdedge`, also under `accelerate launch -m kdedge`."""

from kdedge.cli.main import main

if __name__ == "__main__":
    main()
