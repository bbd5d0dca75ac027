"""What does not keep a rule of the house yet. These sets only shrink: nothing new belongs here."""

STILL_UNUSED = {
    "models.diffusion_ret.denoiser:Denoiser.text_to_video",
    "models.diffusion_ret.denoiser:Denoiser.video_to_text",
    "pipeline.datasets.parts.scenes:Shape.combination",
    "pipeline.video.sampling:half_second",
    "pipeline.video.sampling:time_grid",
    "pipeline.video.timeline:presented",
}

STILL_WITHOUT_SHAPES = {
    "models.drl.model:Drl.logits",
    "models.dual_encoding.model:Head.forward",
    "models.dual_encoding.sequence:Kernel.outputs",
    "models.dual_encoding.sequence:SequenceEncoder.forward",
    "models.hybrid_space.model:Head.forward",
    "models.parts.words_frames:full_precision",
}

STILL_SILENT = {
    "models.dual_encoding.model:embedding",
}

STILL_TWICE = {
    "Clip",
    "Clock",
    "Counts",
    "Entry",
    "Head",
    "Loss",
    "Progress",
    "Reading",
    "Report",
    "Result",
    "Selection",
    "Settings",
    "Shape",
    "Source",
    "Step",
    "Text",
    "Training",
    "Verdict",
    "Video",
    "VideoFiles",
}
