"""The twelve data sets of GEO-Bench v1 (Lacoste et al., NeurIPS 2023, arXiv:2306.03831). Standard library only.

Keys, class names and their order are those of the authors' converters (ServiceNow/geo-bench, make_benchmark/
dataset_converters), split and patch sizes those of the release. Where the release names bands wrongly, the cards
declare what each key truly holds; `misnamed` gives the released names beside it, `FINGERPRINTS` the reader's proof.
"""

from dataclasses import replace
from typing import NamedTuple

from models.common.spectral import Band, band
from tasks.data.dataset import DatasetCard

SENTINEL2 = {
    "S2:B01": "01 - Coastal aerosol",
    "S2:B02": "02 - Blue",
    "S2:B03": "03 - Green",
    "S2:B04": "04 - Red",
    "S2:B05": "05 - Vegetation Red Edge",
    "S2:B06": "06 - Vegetation Red Edge",
    "S2:B07": "07 - Vegetation Red Edge",
    "S2:B08": "08 - NIR",
    "S2:B8A": "08A - Vegetation Red Edge",
    "S2:B09": "09 - Water vapour",
    "S2:B10": "10 - SWIR - Cirrus",
    "S2:B11": "11 - SWIR",
    "S2:B12": "12 - SWIR",
}
SENTINEL1 = {
    "S1:VH.Real": "01 - VH.Real",
    "S1:VH.Imaginary": "02 - VH.Imaginary",
    "S1:VV.Real": "03 - VV.Real",
    "S1:VV.Imaginary": "04 - VV.Imaginary",
    "S1:VH.LEE": "05 - VH.LEE Filtered",
    "S1:VV.LEE": "06 - VV.LEE Filtered",
    "S1:VH.LEE.Real": "07 - VH.LEE Filtered.Real",
    "S1:VV.LEE.Imaginary": "08 - VV.LEE Filtered.Imaginary",
}
LANDSAT8 = {
    "L8:B4": "04 - Red",
    "L8:B3": "03 - Green",
    "L8:B2": "02 - Blue",
    "L8:B5": "05 - NIR",
    "L8:B6": "06 - SWIR1",
    "L8:B7": "07 - SWIR2",
}
RGB = {"RGB:red": "Red", "RGB:green": "Green", "RGB:blue": "Blue"}
CLOUD = {"CLOUD:probability": "Cloud Probability"}

# What the thirteen keys of the two misnamed sets hold, in the order of the keys (README of geobench 1.1, known issues).
EUROSAT_ORDER = "B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A"
BRICK_KILN_ORDER = "B01 B02 B03 B04 B05 B07 B8A B08 B11 B12 TCI:red TCI:green TCI:blue"


class Fingerprint(NamedTuple):
    """A key truly holds this band only if its `statistic` (as in band_stats.json) is under `bound`."""

    statistic: str
    bound: float
    reference: str


# B10 sees almost nothing through the water vapour (a mean of about 12), B09 does; a true-colour composite ends at 255.
FINGERPRINTS = {
    "S2:B10": Fingerprint("mean", 100, "geobench issue 28"),
    "TCI:red": Fingerprint("max", 256, "geobench issue 29"),
    "TCI:green": Fingerprint("max", 256, "geobench issue 29"),
    "TCI:blue": Fingerprint("max", 256, "geobench issue 29"),
}


def misnamed(card: DatasetCard) -> dict[str, str]:
    """By key, the canonical name under which the release offers it, for every key whose true band is another one."""
    released = {key: name for name, key in SENTINEL2.items()}
    ours = [one for one in card.bands if one.name.startswith(("S2:", "TCI:")) and one.key in released]
    return {one.key: released[one.key] for one in ours if one.name != released[one.key]}


def _bands(keys: dict[str, str], unit: str, without: tuple[str, ...] = ()) -> tuple[Band, ...]:
    return tuple(band(name, key, unit) for name, key in keys.items() if name not in without)


def _reordered(order: str) -> tuple[Band, ...]:
    names = [name if ":" in name else f"S2:{name}" for name in order.split()]
    units = ["uint8" if name.startswith("TCI:") else "dn" for name in names]
    return tuple(band(*three) for three in zip(names, SENTINEL2.values(), units, strict=True))


def _classes(names: str) -> tuple[str, ...]:
    return tuple(names.split("; "))


_PAPER = "Lacoste et al., NeurIPS 2023, arXiv:2306.03831"
_CLASSIFICATION, _SEGMENTATION = "classification_v1.0", "segmentation_v1.0"
_SHARE_ALIKE = "CC BY-SA 4.0 (GEO-Bench v1.0 as a whole)"

_CORINE = _classes(
    "Continuous urban fabric; Discontinuous urban fabric; Industrial or commercial units; Road and rail networks "
    "and associated land; Port areas; Airports; Mineral extraction sites; Dump sites; Construction sites; Green "
    "urban areas; Sport and leisure facilities; Non-irrigated arable land; Permanently irrigated land; Rice "
    "fields; Vineyards; Fruit trees and berry plantations; Olive groves; Pastures; Annual crops associated with "
    "permanent crops; Complex cultivation patterns; Land principally occupied by agriculture, with significant "
    "areas of natural vegetation; Agro-forestry areas; Broad-leaved forest; Coniferous forest; Mixed forest; "
    "Natural grassland; Moors and heathland; Sclerophyllous vegetation; Transitional woodland/shrub; Beaches, "
    "dunes, sands; Bare rock; Sparsely vegetated areas; Burnt areas; Inland marshes; Peatbogs; Salt marshes; "
    "Salines; Intertidal flats; Water courses; Water bodies; Coastal lagoons; Estuaries; Sea and ocean"
)
_LOCAL_CLIMATE_ZONES = _classes(
    "Compact high rise; Compact mid rise; Compact low rise; Open high rise; Open mid rise; Open low rise; "
    "Lightweight low rise; Large low rise; Sparsely built; Heavy industry; Dense trees; Scattered trees; Bush, "
    "scrub; Low plants; Bare rock or paved; Bare soil or sand; Water"
)
_EUROSAT = _classes(
    "AnnualCrop; Forest; HerbaceousVegetation; Highway; Industrial; Pasture; PermanentCrop; Residential; River; SeaLake"
)
_FORESTNET = _classes(
    "Oil palm plantation; Timber plantation; Other large-scale plantations; Grassland shrubland; Small-scale "
    "agriculture; Small-scale mixed plantation; Small-scale oil palm plantation; Mining; Fish pond; Logging; "
    "Secondary forest; Other"
)
_CHESAPEAKE = _classes(
    "no-data; water; tree-canopy-forest; low-vegetation-field; barren-land; impervious-other; impervious-roads"
)
_CASHEW = _classes(
    "no data; well-managed plantation; poorly-managed plantation; non-plantation; residential; background; uncertain"
)
_CROPS = _classes(
    "No Data; Lucerne/Medics; Planted pastures (perennial); Fallow; Wine grapes; Weeds; Small grain grazing; "
    "Wheat; Canola; Rooibos"
)

_TABLE: tuple[DatasetCard, ...] = (
    DatasetCard(
        name="m-bigearthnet",
        title="Land cover of Europe, 43 CORINE labels per image",
        label="multilabel",
        classes=_CORINE,
        bands=_bands(SENTINEL2, "dn", without=("S2:B10",)),
        size=120,
        gsd=10,
        modality="ms",
        location=f"{_CLASSIFICATION}/m-bigearthnet",
        splits=(20000, 1000, 1000),
        licence=f"{_SHARE_ALIKE}; source: CDLA-Permissive-1.0",
        origin="BigEarthNet (Sumbul et al., IGARSS 2019)",
        notes="Sentinel-2 L2A, without B10.",
        family="geobench",
        citation=_PAPER,
    ),
    DatasetCard(
        name="m-so2sat",
        title="Local climate zones of cities",
        label="class",
        classes=_LOCAL_CLIMATE_ZONES,
        bands=_bands(SENTINEL1, "undocumented")
        + _bands(SENTINEL2, "reflectance", without=("S2:B01", "S2:B09", "S2:B10")),
        size=32,
        gsd=10,
        modality="ms",
        location=f"{_CLASSIFICATION}/m-so2sat",
        splits=(19992, 986, 986),
        licence=f"{_SHARE_ALIKE}; source: CC BY 4.0",
        origin="So2Sat LCZ42 (Zhu et al., IEEE GRSM 2020)",
        notes="Sentinel-2 as reflectance up to 2.8; Sentinel-1 as complex parts and filtered intensities, linear "
        "and unbounded.",
        family="geobench",
        citation=_PAPER,
    ),
    DatasetCard(
        name="m-brick-kiln",
        title="Brick kilns in Bangladesh",
        label="class",
        classes=("not brick kiln", "brick kiln"),
        bands=_reordered(BRICK_KILN_ORDER),
        size=64,
        gsd=10,
        modality="ms",
        location=f"{_CLASSIFICATION}/m-brick-kiln",
        splits=(15063, 999, 999),
        licence=_SHARE_ALIKE,
        origin="Brick kilns of SustainBench (Lee et al., PNAS 2021)",
        notes="The release names seven of thirteen bands wrongly (geobench issue 29): there is no B06, B09 or B10, "
        "and the last three are a true-colour composite of 0..255.",
        family="geobench",
        citation=_PAPER,
    ),
    DatasetCard(
        name="m-forestnet",
        title="Drivers of deforestation in Indonesia",
        label="class",
        classes=_FORESTNET,
        bands=_bands(LANDSAT8, "uint8"),
        size=332,
        gsd=15,
        modality="ms",
        location=f"{_CLASSIFICATION}/m-forestnet",
        splits=(6464, 989, 993),
        licence=f"{_SHARE_ALIKE}; source: CC BY 4.0",
        origin="ForestNet (Irvin et al., 2020, arXiv:2011.05479)",
        notes="Landsat 8 rendered to 0..255, the surroundings of the loss blended with white; keys carry a date.",
        family="geobench",
        citation=_PAPER,
    ),
    DatasetCard(
        name="m-eurosat",
        title="Land use and land cover of Europe",
        label="class",
        classes=_EUROSAT,
        bands=_reordered(EUROSAT_ORDER),
        size=64,
        gsd=10,
        modality="ms",
        location=f"{_CLASSIFICATION}/m-eurosat",
        splits=(2000, 1000, 1000),
        licence=f"{_SHARE_ALIKE}; source: MIT",
        origin="EuroSAT (Helber et al., IEEE JSTARS 2019)",
        notes="Sentinel-2 L1C. The release names the last five bands wrongly (geobench issue 28).",
        family="geobench",
        citation=_PAPER,
    ),
    DatasetCard(
        name="m-pv4ger",
        title="Solar panels on German roofs",
        label="class",
        classes=("no solar pv", "solar pv"),
        bands=_bands(RGB, "uint8"),
        size=320,
        gsd=0.1,
        modality="optical",
        location=f"{_CLASSIFICATION}/m-pv4ger",
        splits=(11814, 999, 999),
        licence=_SHARE_ALIKE,
        origin="3D-PV-Locator (Mayer et al., Applied Energy 2022)",
        family="geobench",
        citation=_PAPER,
    ),
    DatasetCard(
        name="m-pv4ger-seg",
        title="Outlines of solar panels on German roofs",
        label="mask",
        classes=("no solar pv", "solar pv"),
        bands=_bands(RGB, "uint8"),
        size=320,
        gsd=0.1,
        modality="optical",
        location=f"{_SEGMENTATION}/m-pv4ger-seg",
        splits=(3000, 403, 403),
        licence=_SHARE_ALIKE,
        origin="3D-PV-Locator (Mayer et al., Applied Energy 2022)",
        family="geobench",
        citation=_PAPER,
    ),
    DatasetCard(
        name="m-chesapeake-landcover",
        title="Land cover of the Chesapeake Bay watershed",
        label="mask",
        classes=_CHESAPEAKE,
        bands=_bands({**RGB, "RGB:nir": "NearInfrared"}, "fraction"),
        size=256,
        gsd=1,
        modality="optical",
        location=f"{_SEGMENTATION}/m-chesapeake",
        aliases=("m-chesapeake",),
        splits=(3000, 1000, 1000),
        licence=f"{_SHARE_ALIKE}; source: CDLA-Permissive-1.0",
        origin="Chesapeake Land Cover (Robinson et al., CVPR 2019), NAIP imagery",
        notes="No class is ignored, as in GEO-Bench. The converter lists water first and no-data last, but in the "
        "masks 1 is water and no-data 0 (seen in real samples), so the names stand in that order here.",
        no_data=0,
        family="geobench",
        citation=_PAPER,
    ),
    DatasetCard(
        name="m-cashew-plantation",
        title="Smallholder cashew plantations in Benin",
        label="mask",
        classes=_CASHEW,
        bands=_bands(SENTINEL2, "dn", without=("S2:B10",)) + _bands(CLOUD, "undocumented"),
        size=256,
        gsd=10,
        modality="ms",
        location=f"{_SEGMENTATION}/m-cashew-plant",
        aliases=("m-cashew-plant",),
        splits=(1350, 400, 50),
        licence=f"{_SHARE_ALIKE}; source: CC BY 4.0",
        origin="Smallholder cashew plantations in Benin (TechnoServe and Radiant Earth, 2021)",
        notes="No class is ignored, as in GEO-Bench; class 0 (no data) is absent from the test split. One date per "
        "sample; keys carry it. task_specs.pkl gives the 0.5 m of the labels' source as resolution; the "
        "pixels are Sentinel-2's 10 m.",
        no_data=0,
        family="geobench",
        citation=_PAPER,
    ),
    DatasetCard(
        name="m-SA-crop-type",
        title="Crop types in South Africa",
        label="mask",
        classes=_CROPS,
        bands=_bands({**SENTINEL2, **CLOUD}, "undocumented", without=("S2:B10",)),
        size=256,
        gsd=10,
        modality="ms",
        location=f"{_SEGMENTATION}/m-SA-crop-type",
        splits=(3000, 1000, 1000),
        licence=f"{_SHARE_ALIKE}; source: CC BY 4.0",
        origin="Crop type classification for South Africa (Radiant Earth, 2021)",
        notes="No class is ignored, as in GEO-Bench; class 0 is no data. Values are 0..255 in a scaling that nobody "
        "documents.",
        no_data=0,
        family="geobench",
        citation=_PAPER,
    ),
    DatasetCard(
        name="m-nz-cattle",
        title="Cattle in New Zealand",
        label="mask",
        classes=("no cattle", "cattle"),
        bands=_bands(RGB, "uint8"),
        size=500,
        gsd=0.1,
        modality="optical",
        location=f"{_SEGMENTATION}/m-nz-cattle",
        splits=(524, 66, 65),
        licence=_SHARE_ALIKE,
        origin="NZ cattle (Abuaiadah and Switzer, Zenodo 5908869)",
        notes="Masks are discs round the points that mark animals; the keys of bands and masks carry a date.",
        family="geobench",
        citation=_PAPER,
    ),
    DatasetCard(
        name="m-NeonTree",
        title="Tree crowns at sites of the National Ecological Observatory Network",
        label="mask",
        classes=("no tree", "tree"),
        bands=_bands(RGB, "uint8"),
        size=400,
        gsd=0.1,
        modality="optical",
        location=f"{_SEGMENTATION}/m-NeonTree",
        splits=(270, 94, 93),
        licence=_SHARE_ALIKE,
        origin="NeonTreeEvaluation (Weinstein et al., PLOS Computational Biology 2021)",
        notes="Masks are ellipses in the crowns' boxes. The files also hold a canopy height model and 369 "
        "hyperspectral channels of 40 x 40 pixels, which are not read.",
        family="geobench",
        citation=_PAPER,
    ),
)
FRACTIONS = ("0.01x", "0.02x", "0.05x", "0.10x", "0.20x", "0.50x")
CARDS: dict[str, DatasetCard] = {card.name: replace(card, fractions=FRACTIONS) for card in _TABLE}
