"""How a run is carried out: output, device, precision, checkpoints, logs.

On the command line, None is written null: train.max_seconds=null.
"""

train = dict(
    # Folder for config.yaml, log.txt, metrics.json, tensorboard events, checkpoints, inference/.
    output_dir="./output",
    # Weights to start from, or to evaluate with --eval-only; "" starts from random weights.
    init_checkpoint="",
    # True: tensors of another shape than the model's are left out of init_checkpoint (another set
    # of classes, say) instead of being an error. Never for evaluation and --resume.
    init_allow_wrong_shape=False,
    # True: an init_checkpoint with some of the ViT's tensors starts a training, the others random,
    # instead of being an error.
    init_allow_partial=False,
    # "auto" is the GPU if there is one, else the CPU; or "cpu", "cuda", "cuda:1".
    device="auto",
    # "float32", "bf16", or "fp16" with a dynamic loss scale. Geometry, losses and matching are
    # float32 in all three.
    precision="bf16",
    # Of evaluation; published metrics are float32 (convolutions may still use TF32 on a GPU).
    eval_precision="float32",
    # Steps in all; None derives them from schedule.epochs, the data set and the processes.
    max_iter=None,
    # True adapts optimizer.lr, which is meant for schedule.lr_batch, to the real number of
    # processes and lanes, by the published rule. (Steps follow them in any case.)
    auto_scale=True,
    # Wall time after which training ends, in seconds; None for no limit. The cosine follows
    # whichever of steps and time is further along.
    max_seconds=None,
    # L2 norm over all gradients above which they are scaled down; None for no clipping.
    clip_grad_norm=35.0,
    # Steps in a row with NaN or infinite losses or gradients after which training fails. Such
    # steps never change the weights.
    max_consecutive_skips=50,
    # Iterations between checkpoints (None: one epoch), and how many to keep beside model_final.
    checkpointer=dict(period=None, max_to_keep=1),
    # Iterations between evaluations; 0 evaluates only at the end.
    eval_period=0,
    # Iterations between lines of the log.
    log_period=50,
    # Of weights, dropout, augmentation and the order of scenes; 0 or more.
    seed=0,
    # CPU threads of each process; None leaves torch's choice.
    num_threads=None,
    # torch.compile: the same function in fewer, larger kernels. The first step takes long, and so
    # does each new image size or batch. backbone: the ViT, block by block. decoder: that of the 3D
    # head, as one. mode: "default", or "max-autotune-no-cudagraphs", which tries more kernels.
    compile=dict(backbone=False, decoder=False, mode="default"),
    # Of torch's DistributedDataParallel.
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False),
)
