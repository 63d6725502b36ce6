"""Can a Stable Diffusion in miniature be trained on a laptop? This makes the default model from nothing, in stages.

    python experiments/pretrain.py                     # all stages; kill it and run it again, it goes on
    python experiments/pretrain.py stages=[unet] unet.steps=40000 warm_start=true

data → vae → whole → decoder → clip → vision → unet → export → quality. A stage goes on from its checkpoint in
`folder`; with `warm_start` a stage without one begins at the weights that embedlab ships.
"""

from embedlab.pretrain.run import main

if __name__ == "__main__":
    main()
