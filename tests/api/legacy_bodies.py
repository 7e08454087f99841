"""Requests as the older extension's own test clients write them: every field, stale ones too."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]


def train_body(**changes: Any) -> Body:
    """What post_train.py sends."""
    return {
        "user_id": "test",
        "sd_model_checkpoint": "Chilloutmix-Ni-pruned-fp16-fix.safetensors",
        "train_mode_choose": "Train Human Lora",
        "resolution": 512, "val_and_checkpointing_steps": 100, "max_train_steps": 800, "steps_per_photos": 200,
        "train_batch_size": 1, "gradient_accumulation_steps": 4, "dataloader_num_workers": 16, "learning_rate": 1e-4,
        "rank": 128, "network_alpha": 64,
        "instance_images": [],
        "skin_retouching_bool": False,
        **changes,
    }  # fmt: skip


def infer_body(**changes: Any) -> Body:
    """What post_infer.py sends; `ipa_control`, "Infer with Pretrained Lora" and others mean nothing any more."""
    return {
        "user_ids": ["test"],
        "sd_model_checkpoint": "Chilloutmix-Ni-pruned-fp16-fix.safetensors",
        "init_image": None,
        "first_diffusion_steps": 50, "first_denoising_strength": 0.45,
        "second_diffusion_steps": 20, "second_denoising_strength": 0.35,
        "seed": 12345,
        "crop_face_preprocess": True,
        "before_face_fusion_ratio": 0.5, "after_face_fusion_ratio": 0.5,
        "apply_face_fusion_before": True, "apply_face_fusion_after": True,
        "color_shift_middle": True, "color_shift_last": True,
        "super_resolution": True, "super_resolution_method": "gpen",
        "skin_retouching_bool": False,
        "background_restore": False, "background_restore_denoising_strength": 0.35,
        "makeup_transfer": False, "makeup_transfer_ratio": 0.50,
        "face_shape_match": False,
        "tabs": 1,
        "ipa_control": False, "ipa_weight": 0.50, "ipa_image": None,
        "ref_mode_choose": "Infer with Pretrained Lora",
        "ipa_only_weight": 0.60, "ipa_only_image": None,
        "lcm_accelerate": False,
        **changes,
    }  # fmt: skip


def video_body(**changes: Any) -> Body:
    """What post_video_infer.py sends."""
    return {
        "user_ids": ["test"],
        "sd_model_checkpoint": "Chilloutmix-Ni-pruned-fp16-fix.safetensors",
        "sd_model_checkpoint_for_animatediff_text2video": "majicmixRealistic_v7.safetensors",
        "sd_model_checkpoint_for_animatediff_image2video": "majicmixRealistic_v7.safetensors",
        "t2v_input_prompt": "one person, upper body", "t2v_input_width": 512, "t2v_input_height": 768,
        "scene_id": "none",
        "upload_control_video": False, "upload_control_video_type": "openpose", "openpose_video": None,
        "init_image": None, "init_image_prompt": "", "last_image": None, "init_video": None,
        "additional_prompt": "masterpiece, beauty",
        "max_frames": 16, "max_fps": 8, "save_as": "gif",
        "first_diffusion_steps": 50, "first_denoising_strength": 0.45, "seed": -1,
        "crop_face_preprocess": True,
        "before_face_fusion_ratio": 0.5, "after_face_fusion_ratio": 0.5,
        "apply_face_fusion_before": True, "apply_face_fusion_after": True,
        "color_shift_middle": True,
        "super_resolution": True, "super_resolution_method": "gpen",
        "skin_retouching_bool": False, "makeup_transfer": False, "makeup_transfer_ratio": 0.50, "face_shape_match": False,
        "video_interpolation": False, "video_interpolation_ext": 1,
        "tabs": 0,
        "ipa_control": False, "ipa_weight": 0.50, "ipa_image": None,
        "lcm_accelerate": False,
        **changes,
    }  # fmt: skip
