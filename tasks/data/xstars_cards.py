"""The seven data sets of X-STARS (arXiv 2405.09922, tables I and VIII). Standard library only.

Facts are those of the official releases; `split_note` says what the paper leaves open and what was decided here.
"""

from dataclasses import replace

from models.common.spectral import Band, band
from tasks.data.dataset import DatasetCard

UC_MERCED = (
    *("agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral", "denseresidential", "forest"),
    *("freeway", "golfcourse", "harbor", "intersection", "mediumresidential", "mobilehomepark", "overpass"),
    *("parkinglot", "river", "runway", "sparseresidential", "storagetanks", "tenniscourt"),
)
EUROSAT = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop"),
    *("Residential", "River", "SeaLake"),
)
CV_BRCT = (
    *("apartment", "hospital", "house", "industrial", "parking_lot", "religious", "school", "store", "vacant_lot"),
)
NLCD = {
    11: "open water",
    21: "developed, open space",
    22: "developed, low intensity",
    23: "developed, medium intensity",
    24: "developed, high intensity",
    31: "barren land",
    41: "deciduous forest",
    42: "evergreen forest",
    43: "mixed forest",
    52: "shrub/scrub",
    71: "grassland/herbaceous",
    81: "pasture/hay",
    82: "cultivated crops",
    90: "woody wetlands",
    95: "emergent herbaceous wetlands",
}


def _rgb(gsd: float, *spectral: tuple[float, float]) -> tuple[Band, ...]:
    """Red, green, blue of an 8-bit image, with wavelength and bandwidth (nm) where the sensor's are known."""
    bands = [
        replace(band(f"RGB:{name}", str(key), "uint8"), gsd=gsd) for key, name in enumerate(("red", "green", "blue"), 1)
    ]
    known = zip(bands, spectral, strict=True) if spectral else ()
    return tuple(replace(one, wavelength=centre, bandwidth=width) for one, (centre, width) in known) or tuple(bands)


CARDS = (
    DatasetCard(
        name="eurosat-rgb",
        title="Land use from Sentinel-2, rendered to RGB",
        label="class",
        classes=EUROSAT,
        bands=_rgb(10.0),
        size=64,
        gsd=10.0,
        modality="optical",
        family="eurosat_rgb",
        location="eurosat-rgb",
        splits=(16200, 5400, 5400),
        aliases=("eurosat",),
        licence="MIT; contains Copernicus Sentinel data",
        citation="Helber et al., EuroSAT, IEEE JSTARS 2019",
        origin="github.com/phelber/EuroSAT (EuroSAT.zip); lists: data set torchgeo/eurosat on the hub, commit 1ce6f1b",
        notes="2750/<class>/<class>_<n>.jpg, and beside 2750 the lists eurosat-train.txt, -val.txt and -test.txt.",
        split_note="The published lists of Neumann et al. (arXiv 1911.06721), as torchgeo reads them. X-STARS says "
        "`published split` and names none.",
        bytes=94_000_000,
        checksums=(
            ("EuroSAT.zip", "md5:c8fa014336c82ac7804f0398fcb19387"),
            ("eurosat-train.txt", "sha256:1c1d2e855f95deee605a3d992f914d113fddbecf422ec61648057d029a37d695"),
            ("eurosat-val.txt", "sha256:b385741f31daa9f1250cf1e1fe03adfab394e1172e0693df40141af004f60330"),
            ("eurosat-test.txt", "sha256:cf37948894c12bd953930ff54ee9b7abf0b31478abb8d25fd2c6c721db74c592"),
        ),
    ),
    DatasetCard(
        name="worldstrat",
        title="SPOT 6/7 scenes around the world, land cover of their place",
        label="class",
        classes=("Agriculture", "Forest", "Grassland", "Other", "Settlement", "Water", "Wetland"),
        bands=_rgb(1.5, (660, 70), (560, 60), (485, 70)),
        size=1054,
        gsd=1.5,
        modality="optical",
        family="worldstrat",
        location="worldstrat",
        splits=(3052, 381, 386),
        licence="CC BY-NC 4.0 (SPOT imagery)",
        citation="Cornebise et al., Open High-Resolution Satellite Imagery: The WorldStrat Dataset, NeurIPS 2022",
        origin="zenodo.org/records/15382551 (hr_dataset.zip, stratified_train_val_test_split.csv)",
        notes="hr_dataset/<tile>/<tile>_rgb.png and stratified_train_val_test_split.csv, whose column `IPCC Class` "
        "groups the LCCS class of the place into seven; the 71 rows without one are left out.",
        split_note="The authors' stratified split. The file lists 38 tiles twice, 11 of them in train and in another "
        "split: those are not trained on here. That leaves 3819 labelled tiles where X-STARS counts 3823.",
        checksums=(
            ("hr_dataset.zip", "sha256:7cf08ff4d9bd465f471da8d7f12a536eea78051d87d11fedc75079dc74326d54"),
            (
                "stratified_train_val_test_split.csv",
                "sha256:67a38f84fb122627bf8c89de6ca92004af22f30f001aa46fbe1da432c78a9a0b",
            ),
        ),
    ),
    DatasetCard(
        name="uc-merced",
        title="Urban land use in the USA, aerial",
        label="class",
        classes=UC_MERCED,
        bands=_rgb(0.3),
        size=256,
        gsd=0.3,
        modality="optical",
        family="uc_merced",
        location="uc-merced",
        splits=(1260, 420, 420),
        aliases=("ucmerced",),
        licence="public domain imagery (USGS); the authors ask for citation",
        citation="Yang and Newsam, Bag-of-visual-words and spatial extensions for land-use classification, GIS 2010",
        origin="weegee.vision.ucmerced.edu/datasets/landuse.html; UCMerced_LandUse.zip as torchgeo has it",
        notes="UCMerced_LandUse/Images/<class>/<class><nn>.tif, nn = 00..99. 44 images are not 256 x 256: they "
        "are read as they are.",
        split_note="Ours: X-STARS drew a random split and did not publish it. 60/20/20 of every class, drawn once by "
        "the rule in tasks/data/drawn.py and kept in tasks/data/splits/uc_merced.csv.",
        bytes=332_468_434,
        checksums=(
            ("UCMerced_LandUse.zip", "sha256:06c539ef28703a58fb07bd2837991ac7c48b813b00bb12ac197efd813a18daeb"),
        ),
    ),
    DatasetCard(
        name="cv-brct",
        title="Urban places in Brazil, the aerial view alone",
        label="class",
        classes=CV_BRCT,
        bands=_rgb(0.3),
        size=500,
        gsd=0.3,
        modality="optical",
        family="cv_brct",
        location="cv-brct",
        licence="not stated; Google imagery, published for research",
        citation="Machado et al., AiRound and CV-BrCT, IEEE JSTARS 2021 (arXiv 2008.01133)",
        origin="patreo.dcc.ufmg.br/multi-view-datasets",
        notes="aerial/<class>/<file>; classes are the nine folders that are found. The zoom varies (0.3 to 4800 m in "
        "X-STARS table VIII); the GSD here is the finest.",
        split_note="Ours: X-STARS drew a random split and did not publish it. 60/20/20 by a hash of `<class>/<file>` "
        "(tasks/data/drawn.py). Of the release only the sum is known, about 24000.",
    ),
    DatasetCard(
        name="flair",
        title="Land cover of thirteen French departements, aerial",
        label="mask",
        classes=(
            *("other", "building", "pervious surface", "impervious surface", "bare soil", "water", "coniferous"),
            *("deciduous", "brushwood", "vineyard", "herbaceous vegetation", "agricultural land", "plowed land"),
        ),
        bands=_rgb(0.2),
        size=256,
        gsd=0.2,
        modality="optical",
        family="flair",
        location="flair",
        licence="Etalab Open Licence 2.0",
        citation="Garioud et al., FLAIR #1, arXiv 2211.12979; subset: Marsocci et al., GeoMultiTaskNet, CVPRW 2023",
        origin="ignf.github.io/FLAIR (FLAIR #1)",
        notes="Values 13 to 19 are one class, `other`, as in GeoMultiTaskNet, which leaves it out of its loss. Of the "
        "five bands red, green and blue are read.",
        split_note="Domains of GeoMultiTaskNet: ten train, D064, D068 and D071 test (5350 patches). X-STARS counts "
        "21396 images of 256 px, about one per 512 px patch, and does not say how they were made: here the middle of "
        "each patch. It names 14 classes where the subset has 13. Validation is ours: whole zones of the training "
        "domains, one in ten, by a hash of their names (tasks/data/drawn.py).",
    ),
    DatasetCard(
        name="spacenet8",
        title="Buildings and roads before the flood, Louisiana",
        label="mask",
        classes=("background", "building", "road"),
        bands=_rgb(0.5),
        size=256,
        gsd=0.5,
        modality="optical",
        family="spacenet8",
        location="spacenet8",
        licence="CC BY-SA 4.0",
        citation="Haensch et al., SpaceNet 8, CVPRW 2022",
        origin="s3://spacenet-dataset/spacenet/SN8_floods/tarballs/Louisiana-East_Training_Public.tar.gz",
        notes="PRE-event/<catalogue id>_<x>_<y>_<n>.tif (1300 px) and annotations/<x>_<y>_<n>.geojson. Roads are lines "
        "with 3 m on either side, as in the authors' baseline; buildings lie over roads.",
        split_note="Ours: X-STARS published none. 60/20/20 by a hash of the scene's name (tasks/data/drawn.py), so "
        "that tiles of one scene stay together. 599 scenes of 25 tiles are the 14975 images of X-STARS table VIII; "
        "which three classes it means is not said, and it gives 0.5 m in the table, 0.8 m in the text.",
        checksums=(("Louisiana-East_Training_Public.tar.gz", "md5:fa40ae3cf6ac212c90073bf93d70bd95"),),
    ),
    DatasetCard(
        name="chesapeake-landsat8",
        title="Land cover of the Chesapeake watershed from Landsat 8, leaves on",
        label="mask",
        classes=tuple(NLCD.values()),
        bands=tuple(band(f"L8:B{number}", str(number), "dn") for number in (2, 3, 4)),
        size=200,
        gsd=30.0,
        modality="optical",
        family="chesapeake_landsat",
        location="chesapeake-landsat8",
        aliases=("chesapeake-clc-landsat-8",),
        ignore=255,
        licence="CDLA-Permissive 1.0",
        citation="Robinson et al., Large Scale High-Resolution Land Cover Mapping, CVPR 2019",
        origin="lila.science/datasets/chesapeakelandcover (cvpr_chesapeake_landcover.zip)",
        notes="<state>_1m_<year>_extended-debuffered-<split>_tiles/<tile>_landsat-leaf-on.tif (nine float bands, the "
        "first seven surface reflectance x 10000) and <tile>_nlcd.tif, both resampled to 1 m in the release.",
        split_note="The release's train, val and test tiles of six states. X-STARS counts 731 images of 200 px at 30 "
        "m, one per tile, and does not say how they were cut nor which season: here the middle of each tile, read "
        "every 30 m, leaves on. Its 15 classes are those of NLCD 2011 that occur there.",
        checksums=(("cvpr_chesapeake_landcover.zip", "md5:1225ccbb9590e9396875f221e5031514"),),
    ),
)
XSTARS_CARDS: dict[str, DatasetCard] = {card.name: card for card in CARDS}
