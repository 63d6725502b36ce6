"""Can a Stable Diffusion in miniature be trained on a laptop? This makes the default model from nothing, in stages.

    python experiments/pretrain.py                     # all stages; kill it and run it again, it goes on
    python experiments/pretrain.py stages=[drawings,decoder,export] warm_start=emoji folder=pretrain-runs/more

drawings → vae → text → judge → latents → decoder → unet → eye → vision → export → quality. A stage goes on from its
checkpoint in `folder`; one without begins at the weights of the model that `warm_start` names. docs/training.md tells
what each is for, how long it takes and what was tried.
"""

from embedlab.pretrain.run import main

if __name__ == "__main__":
    main()
