"""`python -m model_to_metal.pipeline.argo`: one stage, in its pod."""

from model_to_metal.pipeline.argo.pod import main

if __name__ == "__main__":
    raise SystemExit(main())
