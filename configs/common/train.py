"""How a run is carried out: output, device, precision, checkpoints, logs.

On the command line, None is written null: train.max_seconds=null.
"""

train = dict(
    # Folder for config.yaml, log.txt, metrics.json, tensorboard events, checkpoints, inference/.
    output_dir="./output",
    # Weights to start from, or to evaluate with --eval-only; "" starts from random weights.
    init_checkpoint="",
    # Which weights of init_checkpoint are taken: "model", or "ema", their moving average.
    init_weights="model",
    # True leaves out tensors of init_checkpoint whose shape is not that of the model (another set
    # of classes, say); False makes them an error. Evaluation and --resume never leave them out.
    init_allow_wrong_shape=False,
    # True starts a training from an init_checkpoint with only some of the ViT's tensors, the others
    # random; False makes it an error.
    init_allow_partial=False,
    # "auto" is the GPU if there is one, else the CPU; or "cpu", "cuda", "cuda:1".
    device="auto",
    # "float32", "bf16", or "fp16" with a dynamic loss scale. Geometry, losses and matching are
    # float32 in all three.
    precision="bf16",
    # Precision of evaluation. Published metrics are float32; convolutions may use TF32 on a GPU.
    eval_precision="float32",
    # Steps in all; None derives them from schedule.epochs, the data set and the processes.
    max_iter=None,
    # True adapts optimizer.lr, which is meant for schedule.lr_batch, to the number of processes and
    # lanes of this run, by the published rule. The number of steps follows them in any case.
    auto_scale=True,
    # Wall time in seconds after which training ends; None for no limit. The cosine follows steps or
    # time, whichever is further along.
    max_seconds=None,
    # L2 norm over all gradients above which they are scaled down; None for no clipping.
    clip_grad_norm=35.0,
    # Steps in a row with NaN or infinite losses or gradients after which training fails. Such
    # steps never change the weights.
    max_consecutive_skips=50,
    # Batches of one step, one after the other in the streams; their gradients are averaged. A step
    # then has as many frames as lanes x processes x accumulate.
    accumulate=1,
    # period: iterations between checkpoints, None for an epoch. max_to_keep: of those, beside the
    # final one; with two there is one before a damaged one. background: a thread writes a copy of
    # everything in host memory; False needs no copy, and the step waits.
    checkpointer=dict(period=None, max_to_keep=2, background=True),
    # True allows --resume with other lanes (processes, accumulate) or another memory: then all
    # streams begin anew, and epochs and learning rate go on.
    restart_streams=False,
    # Parts that are not trained: a dict(parts="backbone.net.", iters=500) for each. parts is the
    # start of the names of parameters, iters how many first steps; None: all steps.
    freeze=[],
    # dict(metric="bbox3d/NDS", mode="max") keeps model_best.pth: the weights with the best value in
    # an evaluation, every eval_period and at the end. None keeps none.
    best_checkpoint=None,
    # LazyCalls of hooks of detectron2's kind, which act in each step.
    hooks=[],
    # Moving average of the weights, evaluated and saved beside them: None, or
    # dict(decay=0.9999, warmup_iters=1000, start_iter=0). decay is the share that is kept in each
    # step, after about warmup_iters; until start_iter steps are done it equals the weights.
    ema=None,
    # Iterations between evaluations; 0 evaluates only at the end.
    eval_period=0,
    # Iterations between lines of the log.
    log_period=50,
    # Seed of weights, dropout, augmentation and the order of scenes; 0 or more.
    seed=0,
    # CPU threads of each process; None leaves torch's choice.
    num_threads=None,
    # torch.compile: fewer, larger kernels. The first step takes long, and so does each new image
    # size or batch. backbone: the blocks of the ViT, one by one. decoder: that of the 3D head, as a
    # whole. mode: "default", or "max-autotune-no-cudagraphs", which tries more kernels.
    compile=dict(backbone=False, decoder=False, mode="default"),
    # Arguments of torch's DistributedDataParallel. Buffers are constants, but for statistics of
    # BatchNorm in the YOLOX head: each process has its own, and nothing reads them.
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False),
)
