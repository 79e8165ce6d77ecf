"""Published numbers of other systems, by protocol, with where they were read and what spoils a comparison.

Values were transcribed from tables of papers, partly by way of secondary sources, and not checked against the PDFs.
None stands for "not published". Sources are keys of `SOURCES`.
"""

from __future__ import annotations

import dataclasses

SOURCES: dict[str, str] = {
    "H": "HAMSt3R, tables 2 to 4",
    "C": "CHROMM",
    "U": "UniSH, tables 1 to 3 (public transcription)",
    "3": "Human3R, tables 1 to 8 (transcription of arXiv 2510.06219)",
    "F": "HSfM, as cited by HAMSt3R",
    "E": "EgoHumans repository",
}

Row = tuple[str, tuple[float | str | None, ...], str]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One published table.

    Args:
        key: Short name, used in anchors.
        title: Data set and what is measured.
        columns: Headings with units.
        ours: Keys of our metrics for the columns, "" where we have no counterpart.
        factors: From our unit to the unit of the column.
        lower_is_better: Per column.
        rows: (method, values, source).
        caveats: What must be known before comparing.
        datasets: Beginnings of the `dataset` in the manifest of converted recordings to which ours is comparable.
        ours_best_match: As `ours`, of whoever fits best in each frame, as Human3R chooses; empty where it makes no
            difference.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    ours: tuple[str, ...]
    factors: tuple[float, ...]
    lower_is_better: tuple[bool, ...]
    rows: tuple[Row, ...]
    caveats: tuple[str, ...]
    datasets: tuple[str, ...]
    ours_best_match: tuple[str, ...] = ()


_WORLD = ("WA-MPJPE [mm]", "W-MPJPE [mm]", "RTE [%]")
_WORLD_KEYS = ("wa_mpjpe_mm", "w_mpjpe_mm", "rte_pct")
_WORLD_BEST_MATCH = ("wa_mpjpe_oracle_mm", "w_mpjpe_oracle_mm", "rte_oracle_pct")
_BEST_MATCH = ("Ours is of the one track that covers a person most. Human3R's numbers take the best match of each "
               "frame, so that a change of identity costs nothing: they belong beside our row of that name.")
_LOCAL = ("PA-MPJPE [mm]", "MPJPE [mm]", "PVE [mm]")
_LOCAL_KEYS = ("pa_mpjpe_mm", "mpjpe_mm", "")
_RIG_KEYS = ("rig_te_m", "rig_s_te_m", "rig_ae_deg", "rig_rra_10deg", "rig_cca_10pct", "rig_s_cca_10pct")
_RIG = ("Ours is measured with `evaluate bag --rig people`: cameras are placed from people, identities are "
        "found, and people who are missed have no error: read it with its coverage.")
_CAMERA_SOURCE = ("Papers mix the true rotation of a gyroscope with estimated cameras: WHAM's 135.6 mm on EMDB-2 uses "
                  "the gyroscope. Human3R and this package use only what they estimate themselves.")
_JOINTS = ("Published joints are the 24 of SMPL, regressed from meshes; ours are the 22 that SMPL-X shares with them.")

PROTOCOLS: tuple[Protocol, ...] = (
    Protocol(
        "emdb2", "EMDB-2: global human motion", _WORLD, _WORLD_KEYS, (1.0, 1.0, 1.0), (True,) * 3, (
            ("GLAMR", (280.8, 726.6, 11.4), "3"), ("SLAHMR", (326.9, 776.1, 10.2), "3, U"),
            ("COIN", (152.8, 407.3, 3.5), "3"), ("TRACE", (529.0, 1702.3, 17.7), "3"),
            ("WHAM (gyroscope)", (135.6, 354.8, 6.0), "3"), ("WHAM, as in UniSH", (None, 334.8, None), "U"),
            ("TRAM", (76.4, 222.4, 1.4), "3, U"), ("GVHMR", (111.0, 276.5, 2.0), "3, U"),
            ("JOSH", (68.9, 174.7, 1.3), "3, U"), ("JOSH3R", (220.0, 661.7, 13.1), "3, U"),
            ("UniSH", (118.5, 270.1, 5.8), "U"), ("Human3R L/896, TTT3R", (112.2, 267.9, 2.2), "3"),
            ("Human3R L/896, without TTT3R", (124.3, 292.3, 2.5), "3"),
            ("Human3R S/672", (129.9, None, None), "3"), ("Human3R B/672", (122.1, None, None), "3"),
            ("Human3R L/672", (113.6, None, None), "3"),
            ("CUT3R + Multi-HMR, naive (TTT3R)", (401.3, 1173.9, 12.2), "3"),
            ("CHROMM, one camera", (102.6, 255.0, 1.7), "C"),
            ("CHROMM, no scale adjustment", (169.7, 447.9, 4.2), "C"),
            ("CHROMM, depth residual", (107.5, None, None), "C"), ("CHROMM, direct depth", (133.8, None, None), "C"),
            ("CHROMM, direct translation", (196.4, None, None), "C")),
        (_CAMERA_SOURCE, _JOINTS, "Chunks of 100 frames; missed frames disappear in the published numbers, ours come "
         "with their coverage.", "WHAM's W-MPJPE is 354.8 in Human3R's table and 334.8 in UniSH's; both are shown. "
         "The tables do not say which data set CHROMM's ablations of depth and translation are on; EMDB-2 is "
         "assumed.", _BEST_MATCH), ("emdb2",), _WORLD_BEST_MATCH),
    Protocol(
        "rich", "RICH: global human motion", _WORLD, _WORLD_KEYS, (1.0, 1.0, 1.0), (True,) * 3, (
            ("GLAMR", (129.4, 236.2, 3.8), "3"), ("SLAHMR", (132.2, 237.1, 6.4), "3, U"),
            ("COIN", (169.5, 254.5, None), "3"), ("TRACE", (238.1, 925.4, 610.4), "3"),
            ("WHAM", (108.4, 196.1, 4.5), "3"), ("WHAM, as in UniSH", (None, 190.1, None), "U"),
            ("TRAM", (127.8, 238.0, 6.0), "3, U"),
            ("GVHMR", (78.8, 126.3, 2.4), "3, U"), ("JOSH", (89.0, 132.5, 3.0), "3, U"),
            ("UniSH", (118.1, 183.2, 4.8), "U"), ("Human3R L/896, TTT3R", (110.0, 184.9, 3.3), "3"),
            ("Human3R S/672", (131.8, None, None), "3"), ("Human3R B/672", (119.2, None, None), "3"),
            ("Human3R L/672", (110.3, None, None), "3"), ("CHROMM, one camera", (87.5, 138.3, 3.3), "C"),
            ("CHROMM, several cameras", (53.1, 79.0, 1.4), "C"),
            ("CHROMM, several, averaged only", (69.3, 105.7, 1.7), "C"),
            ("CHROMM, several, max-pool + triangulation", (63.2, None, None), "C")),
        (_CAMERA_SOURCE, _JOINTS, "RICH has static cameras; most methods know that.",
         "CHROMM with several cameras reconstructs 25 frames at a time and stitches them: ours is comparable when "
         "measured with `evaluate bag --rig people --stitch 25`.", _BEST_MATCH), ("rich",), _WORLD_BEST_MATCH),
    Protocol(
        "3dpw", "3DPW: pose in the camera frame", _LOCAL, _LOCAL_KEYS, (1.0, 1.0, 1.0), (True,) * 3, (
            ("CLIFF", (43.0, 69.0, 81.2), "3"), ("HMR2.0a", (44.4, 69.8, 82.2), "3"),
            ("TokenHMR", (44.3, 71.0, 84.6), "3"), ("CameraHMR", (38.5, 62.1, 72.9), "3"),
            ("NLF", (37.3, 60.3, 71.4), "3"), ("PromptHMR", (36.6, 58.7, 69.4), "3"),
            ("BEV", (46.9, 78.5, 92.3), "3"), ("Multi-HMR", (45.9, 73.1, 87.1), "3"),
            ("Human3R", (44.1, 71.2, 84.9), "3")),
        ("3DPW uses 14 joints regressed from the mesh (H36M regressor); ours are skeleton joints.",
         "The first six crop each person with a detector; BEV, Multi-HMR and Human3R see the whole image."), ("3dpw",)),
    Protocol(
        "emdb1", "EMDB-1: pose in the camera frame", _LOCAL, _LOCAL_KEYS, (1.0, 1.0, 1.0), (True,) * 3, (
            ("CLIFF", (68.3, 103.3, 123.7), "3"), ("HMR2.0a", (61.5, 97.8, 120.0), "3"),
            ("TokenHMR", (55.6, 91.7, 109.4), "3"), ("CameraHMR", (43.7, 73.0, 85.4), "3"),
            ("NLF", (41.2, 69.6, 82.4), "3"), ("PromptHMR", (41.0, 71.7, 84.5), "3"),
            ("BEV", (70.9, 112.2, 133.4), "3"), ("Multi-HMR", (50.1, 81.6, 95.7), "3"),
            ("Human3R", (48.5, 73.9, 86.0), "3")),
        (_JOINTS, "The first six crop each person with a detector; BEV, Multi-HMR and Human3R see the whole image."),
        ("emdb1",)),
    Protocol(
        "egohumans", "EgoHumans: several cameras, pose", ("W-MPJPE [m]", "GA-MPJPE [m]", "PA-MPJPE [m]"),
        ("rig_w_mpjpe_m", "rig_ga_mpjpe_m", "rig_pa_mpjpe_m"), (1.0, 1.0, 1.0), (True,) * 3, (
            ("Multi-HMR", (7.66, 0.99, 0.12), "H, C"), ("UnCaliPose", (3.51, 0.67, 0.13), "H, C"),
            ("HSfM (init)", (4.28, 0.51, 0.06), "H, C"), ("HSfM", (1.04, 0.21, 0.05), "H, C"),
            ("HAMSt3R", (3.80, 0.42, 0.14), "H, C"), ("CHROMM", (0.51, 0.15, 0.05), "H, C")),
        ("HSfM never released its evaluation or list of scenes; identities of people are given.",
         _RIG),
        ("egohumans",)),
    Protocol(
        "egoexo4d", "EgoExo4D: several cameras, pose", ("W-MPJPE [m]", "PA-MPJPE [m]"),
        ("rig_w_mpjpe_m", "rig_pa_mpjpe_m"), (1.0, 1.0),
        (True,) * 2, (
            ("Multi-HMR", (2.88, 0.07), "H, C"), ("UnCaliPose", (2.90, 0.13), "H, C"),
            ("HSfM (init)", (5.29, 0.07), "H, C"), ("HSfM", (0.56, 0.06), "H, C"), ("HAMSt3R", (0.51, 0.09), "H, C"),
            ("CHROMM", (0.26, 0.06), "H, C")),
        ("17 COCO keypoints; one person, so GA equals PA and has no column.", _RIG), ("egoexo4d",)),
    Protocol(
        "egohumans_cameras", "EgoHumans: poses of the cameras",
        ("TE [m]", "s-TE [m]", "AE [deg]", "RRA@10", "CCA@10", "s-CCA@10"), _RIG_KEYS, (1.0,) * 6,
        (True, True, True, False, False, False), (
            ("UnCaliPose", (2.63, 2.63, 60.90, 0.28, None, 0.33), "H"),
            ("DUSt3R", (None, 1.15, 11.00, 0.61, None, 0.49), "H"),
            ("MASt3R", (4.97, 0.92, 10.42, 0.61, 0.06, 0.65), "H"),
            ("HSfM (init)", (2.37, 1.15, 11.00, 0.52, 0.26, 0.49), "H"),
            ("HSfM", (2.09, 0.75, 9.35, 0.72, 0.32, 0.75), "H"), ("DUNE", (1.43, 0.17, 3.51, 0.96, 0.27, 0.97), "H"),
            ("HAMSt3R", (2.33, 0.40, 10.24, 0.77, 0.06, 0.75), "H")),
        ("HAMSt3R by size of the scene, large / small: TE 3.30 / 1.31, s-TE 0.66 / 0.12, AE 16.30 / 2.32, RRA 0.58 / "
         "1.00, CCA 0.00 / 0.14, s-CCA 0.51 / 1.00 [H].",
         "HSfM's own thresholds are 15 degrees and 15 %: RRA@15 0.89, s-CCA@15 0.91, CCA@15 0.46 [F].", _RIG),
        ("egohumans",)),
    Protocol(
        "egoexo4d_cameras", "EgoExo4D: poses of the cameras",
        ("TE [m]", "s-TE [m]", "AE [deg]", "RRA@10", "CCA@10", "s-CCA@10"), _RIG_KEYS, (1.0,) * 6,
        (True, True, True, False, False, False), (
            ("UnCaliPose", (2.43, 1.16, 65.61, 0.19, None, 0.24), "H"),
            ("DUSt3R", (None, 0.33, 9.92, 0.81, None, 0.64), "H"),
            ("MASt3R", (0.96, 0.35, 11.70, 0.79, 0.06, 0.68), "H"),
            ("HSfM (init)", (1.27, 0.33, 9.92, 0.81, 0.05, 0.64), "H"),
            ("HSfM", (0.95, 0.36, 11.57, 0.78, 0.07, 0.67), "H"), ("DUNE", (1.03, 0.26, 6.45, 0.94, 0.25, 0.85), "H"),
            ("HAMSt3R", (0.60, 0.15, 2.85, 0.99, 0.42, 0.87), "H")), (_RIG,), ("egoexo4d",)),
    Protocol(
        "bonn", "Bonn: video depth", ("AbsRel", "delta1"), ("depth_absrel_scale", "depth_delta1_scale"), (1.0, 1.0),
        (True, False), (
            ("DUSt3R", (0.151, 0.839), "U"), ("MASt3R", (0.188, 0.765), "U"), ("MonST3R", (0.072, 0.957), "U"),
            ("Fast3R", (0.194, 0.772), "U"), ("MVDUSt3R", (0.426, 0.357), "U"), ("CUT3R", (0.078, 0.937), "U"),
            ("Aether", (0.273, 0.594), "U"), ("FLARE", (0.152, 0.790), "U"), ("VGGT", (0.057, 0.966), "U"),
            ("pi3", (0.049, 0.975), "U"), ("UniSH", (0.035, 0.980), "U"),
            ("UniSH, BEDLAM only", (0.062, 0.960), "U"), ("UniSH, BEDLAM and real", (0.051, 0.968), "U")),
        ("One scale per sequence (Weiszfeld), 110 frames of five sequences. Human3R shows Bonn and TUM as plots only.",
         "That search stops early, at a scale that rounding moves by half a per cent; `depth_absrel_scale_lad` in our "
         "metrics is of the exact one."),
        ("bonn",)),
    Protocol(
        "multiview_depth", "HAMSt3R: multi-view depth, average relative error [%], and relative pose",
        ("KITTI", "ScanNet", "ETH3D", "DTU", "T&T", "average"), ("",) * 6, (1.0,) * 6, (True,) * 6, (
            ("HAMSt3R", (5.60, 4.43, 2.96, 5.31, 3.01, 4.26), "H"),),
        ("CO3Dv2: RRA@15 90.7, RTA@15 90.2, mAA30 76.3; RealEstate10K: mAA30 77.4 [H]. This package has no multi-view "
         "depth.",), ()),
    Protocol(
        "association", "EgoHumans: who is who across cameras", ("pair accuracy [%]", "precision [%]"),
        ("association_accuracy", "association_precision"), (100.0, 100.0), (False, False), (
            ("CHROMM, pose and position", (91.3, None), "C"), ("CHROMM, position only", (91.1, None), "C"),
            ("CHROMM, pose only", (70.6, 48.5), "C")),
        ("The exact denominators were not published; ours are all pairs of detections of two cameras.",),
        ("egohumans",)),
    Protocol(
        "tracking", "EgoHumans, worn cameras: tracking", ("IDF1 [%]", "MOTA [%]"), ("idf1", "mota"), (100.0, 100.0),
        (False, False), (("ByteTrack", (50.9, 59.7), "E"), ("SimpleBaseline", (62.0, 59.5), "E")),
        ("Theirs match boxes in the image, ours pelvises within 0.5 m in space.",), ("egohumans",)),
    Protocol(
        "other_bodies", "Other body benchmarks", ("value [mm]",), ("",), (1.0,), (True,), (
            ("Human3R, MPI-INF-3DHP, MPJPE", (106.4,), "3"), ("Human3R, MoYo, MPJPE", (149.7,), "3"),
            ("Human3R, RICH, PA-MPVPE", (56.3,), "3")), (), ()),
    Protocol(
        "speed", "Speed", ("frames per second",), ("fps",), (1.0,), (False,), (
            ("Human3R S/672, RTX 4090", (15.9,), "3"), ("Human3R B/672, RTX 4090", (13.3,), "3"),
            ("Human3R L/672, RTX 4090", (9.2,), "3"), ("Human3R L/896, RTX 4090", (5.4,), "3"),
            ("GVHMR", (4.88,), "3"), ("TRAM", (0.86,), "3"), ("JOSH", (0.8,), "3"),
            ("HSfM, 3 people, 4 views, 1 step, V100", ("118 s per step",), "C"),
            ("HAMSt3R, the same", ("32 s per step",), "C"), ("CHROMM, the same", ("4 s per step",), "C")),
        ("Ours runs on the hardware named at the top, with one thread and one instruction set so that numbers repeat; "
         "`human-scene bench pipeline` measures speed.", "Human3R needs 8 GB of GPU memory [3]."), ("*",)),
)
