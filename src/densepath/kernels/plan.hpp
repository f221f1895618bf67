// A network as the flat list of its layers, which `models/plan.py` makes. No vectors here: any
// program may include this.
#pragma once

#include <string>
#include <vector>

namespace densepath {

// Each in the order of `models/plan.py`'s list of the same name.
enum class Kind { convolution, classifier };
enum class Reads { images, state, layer };
enum class Writes { opens, appends, adds, nothing };
enum class StemPool { none, pad1, same };

// As `models/plan.py:Layer`, whose attributes these are; `part` is a number here.
struct PlanLayer {
  std::string name, before, behind;  // before, behind: BatchNorms, empty where there is none
  Kind kind = Kind::convolution;
  int inputs = 0, outputs = 0, kernel = 1, stride = 1, groups = 1;
  Reads reads = Reads::layer;
  Writes writes = Writes::nothing;
  StemPool pool = StemPool::none;
  bool averaged = false;
  int base = 0, part = 0;
};

struct Plan {
  std::vector<PlanLayer> layers;
  double bn_eps = 0;
  // The channels of the images, and their usual size, which says where Winograd's way will pay;
  // images of other sizes are taken too.
  int channels = 0, height = 0, width = 0;

  // The smallest side that leaves a last map of one pixel.
  int least_side() const {
    int side = 1;
    for (const PlanLayer& layer : layers) {
      if (layer.writes != Writes::opens) continue;
      side *= layer.stride * (layer.pool == StemPool::none ? 1 : 2) * (layer.averaged ? 2 : 1);
    }
    return side;
  }
};

}  // namespace densepath
